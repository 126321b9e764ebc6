"""Light networks that segmentation-models-pytorch lacks, from their papers.

Each takes `in_channels`, `classes` and `width`, a factor on its numbers of channels, and maps images, float
[batch, in_channels, height, width], to logits of the same height and width. Height and width are multiples of 32.
"""

from greenseg.models.light.attention_squeeze_unet import AttentionSqueezeUNet
from greenseg.models.light.cgnet import CGNet
from greenseg.models.light.contextnet import ContextNet
from greenseg.models.light.enet import ENet
from greenseg.models.light.erfnet import ERFNet
from greenseg.models.light.espnetv2 import ESPNetv2
from greenseg.models.light.lraspp import LRASPP

__all__ = ["LRASPP", "AttentionSqueezeUNet", "CGNet", "ContextNet", "ENet", "ERFNet", "ESPNetv2"]
