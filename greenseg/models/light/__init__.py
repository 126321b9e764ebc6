"""Light networks that segmentation-models-pytorch lacks, implemented from their papers.

Each takes `in_channels`, `classes` and `width`, a factor on its channel numbers. It maps images, float
[batch, in_channels, height, width], to logits of the same height and width, which are multiples of 32.
"""
