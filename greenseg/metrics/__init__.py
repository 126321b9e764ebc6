"""Segmentation quality per volume: overlap and surface distances."""
