"""Overlap per volume."""

import torch
from torchmetrics import Metric

from greenseg.data.loader import NOBODY


class VolumeOverlap(Metric):
    """Dice and IoU per volume, from slices in any order and on any rank.

    True positives, false positives and false negatives are summed per subject, also over ranks, before the division. So
    a slice without foreground and without prediction adds nothing. Dice = 2TP / (2TP + FP + FN), IoU = TP / (TP + FP +
    FN) (Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x). A volume without foreground and without prediction has
    neither, and is left out of the mean.
    """

    counts: torch.Tensor
    full_state_update = False

    def __init__(self, subjects: list[str]) -> None:
        super().__init__()
        self.subjects = subjects
        # One more row than subjects: it counts padding, and is never read.
        self.add_state("counts", torch.zeros(len(subjects) + 1, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, mask: torch.Tensor, subject: torch.Tensor) -> None:
        """Count a batch.

        Args:
            prediction: bool [batch, 1, height, width].
            mask: the truth, any type, above 0.5 in the foreground; same shape.
            subject: int64 [batch], row of the subject, or NOBODY.
        """
        truth = mask > 0.5
        each = [prediction & truth, prediction & ~truth, ~prediction & truth]
        sums = torch.stack([x.flatten(1).sum(1) for x in each], 1).to(self.counts.dtype)
        rows = torch.where(subject == NOBODY, len(self.subjects), subject)
        self.counts.index_add_(0, rows, sums)

    def compute(self) -> dict[str, torch.Tensor]:
        """`dice` and `iou`: means over volumes; `volume_dice`: float64 [subjects], NaN where undefined."""
        tp, fp, fn = self.counts[:-1].unbind(1)
        volume_dice = 2 * tp / (2 * tp + fp + fn)
        return {
            "dice": volume_dice.nanmean(),
            "iou": (tp / (tp + fp + fn)).nanmean(),
            "volume_dice": volume_dice,
        }
