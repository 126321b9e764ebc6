"""Overlap per volume and class."""

import torch
from torchmetrics import Metric

from greenseg.classes import IGNORED
from greenseg.data.loader import NOBODY


class VolumeOverlap(Metric):
    """Dice and IoU per volume and class, from slices in any order and on any rank.

    True positives, false positives and false negatives are summed per subject, also over ranks, before the division. So
    a slice without foreground and without prediction adds nothing. Dice = 2TP / (2TP + FP + FN), IoU = TP / (TP + FP +
    FN) (Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x). A volume without a class and without a prediction of it
    has neither, and is left out of the mean. So is a class that no volume has.

    Args:
        subjects: names of the subjects.
        classes: number of classes.
        ignored: whether the masks have pixels that are `IGNORED`; these count nowhere.
    """

    counts: torch.Tensor
    full_state_update = False

    def __init__(self, subjects: list[str], classes: int = 1, ignored: bool = False) -> None:
        super().__init__()
        self.subjects, self.classes, self.ignored = subjects, classes, ignored
        # One more row than subjects: it counts padding, and is never read.
        self.add_state("counts", torch.zeros(len(subjects) + 1, classes, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, mask: torch.Tensor, subject: torch.Tensor) -> None:
        """Count a batch.

        Args:
            prediction: number of the class of each pixel, 0 for background: bool or uint8 [batch, 1, height, width].
            mask: the truth in the same way, or `IGNORED`: any type, same shape.
            subject: int64 [batch], row of the subject, or NOBODY.
        """
        numbers = torch.arange(1, self.classes + 1, device=mask.device)[:, None, None]
        predicted, truth = prediction == numbers.to(prediction.dtype), mask == numbers.to(mask.dtype)
        if self.ignored:
            predicted = predicted & (mask != IGNORED)
        each = (predicted & truth, predicted, truth)
        both, all_predicted, all_true = (x.flatten(2).sum(2, dtype=torch.int32) for x in each)
        sums = torch.stack([both, all_predicted - both, all_true - both], 2).to(self.counts.dtype)
        rows = torch.where(subject == NOBODY, len(self.subjects), subject)
        self.counts.index_add_(0, rows, sums)

    def compute(self) -> dict[str, torch.Tensor]:
        """The scores of all volumes, see `scores_of_counts`."""
        return scores_of_counts(self.counts[:-1])


def scores_of_counts(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """`dice` and `iou`: means over classes of the means over volumes, and the values that they come from.

    `class_dice` and `class_iou`: float64 [classes], means over volumes. `dice_of` and `iou_of`: float64 [classes,
    subjects]. `volume_dice` and `volume_iou`: float64 [subjects], means over classes. NaN where undefined.

    Args:
        counts: true positives, false positives and false negatives, float64 [subjects, classes, 3].
    """
    tp, fp, fn = counts.transpose(0, 1).unbind(2)
    # The data of a single class are refused if no volume has it.
    measured = ((tp + fn).sum(1, keepdim=True) > 0) | (counts.shape[1] == 1)
    dice = torch.where(measured, 2 * tp / (2 * tp + fp + fn), torch.nan)
    iou = torch.where(measured, tp / (tp + fp + fn), torch.nan)
    class_dice, class_iou = dice.nanmean(1), iou.nanmean(1)
    return {
        "dice": class_dice.nanmean(),
        "iou": class_iou.nanmean(),
        "class_dice": class_dice,
        "class_iou": class_iou,
        "dice_of": dice,
        "iou_of": iou,
        "volume_dice": dice.nanmean(0),
        "volume_iou": iou.nanmean(0),
    }
