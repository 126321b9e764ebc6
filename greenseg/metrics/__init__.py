"""Quality of a segmentation, by volume: overlap and distances of surfaces."""
