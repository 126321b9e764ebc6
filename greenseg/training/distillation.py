"""Distillation: a network also learns from the soft masks of a trained one (Hinton et al. 2015, arXiv:1503.02531)."""

import torch
from torch import nn
from torch.nn import functional

from greenseg.models.memory_format import channels_last
from greenseg.settings import Settings


class Teacher:
    """A trained network and the loss against its soft masks.

    It is no module: its weights are neither trained nor part of a checkpoint.

    Args:
        network: the trained network; logits like those of the student.
        settings: settings of the student.
    """

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        self._network = network.eval().requires_grad_(False)
        self._settings = settings

    def with_soft_masks(self, loss: torch.Tensor, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The loss of a batch with both parts: `distill_weight` of the soft masks, the rest of the masks.

        All pixels have soft masks, also those that are not annotated.

        Args:
            loss: loss against the masks, a scalar.
            logits: of the student, [batch, outputs, height, width].
            images: the batch that the student saw, after augmentation, [batch, channels, height, width].
        """
        weight = self._settings.distill_weight
        soft = divergence(logits.float(), self._logits(images), self._settings.distill_temperature)
        return (1 - weight) * loss + weight * soft

    @torch.no_grad()
    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        self._network.to(images.device)  # no copy once it is there
        if self._settings.channels_last:
            images = channels_last(images)
        images = images.to(next(self._network.parameters()).dtype)
        return self._network(images).float()  # type: ignore[no-any-return]


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean Kullback-Leibler divergence per pixel between the probabilities of teacher and student at a temperature T.

    Times T², so that its gradients do not shrink with the temperature (Hinton et al. 2015). It is 0 if both agree.

    Args:
        student: logits, float32 [batch, outputs, height, width]; a single output is that of a sigmoid.
        teacher: likewise.
        temperature: the temperature.
    """
    student, teacher = student / temperature, teacher / temperature
    if student.shape[1] == 1:  # the sigmoid of x is the softmax of (0, x)
        student, teacher = (torch.cat([torch.zeros_like(x), x], 1) for x in (student, teacher))
    each = functional.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True)
    return each.sum(1).mean() * temperature**2
