"""Light networks that segmentation-models-pytorch lacks, from their papers.

Each takes `in_channels`, `classes` and `width`, a factor on its numbers of channels, and maps images, float
[batch, in_channels, height, width], to logits of the same height and width. Height and width are multiples of 32.
"""
