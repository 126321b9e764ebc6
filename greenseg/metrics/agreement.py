"""The agreement of a predicted mask with a reference mask, for one class of one volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from greenseg.metrics.surface import Mask, surface_scores

State = Literal["both", "missed", "spurious", "empty"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of two masks. Metrics are None where undefined.

    Attributes:
        tp, fp, fn, tn: numbers of pixels.
        hd95: in mm; see `greenseg.metrics.surface`.
        assd: average symmetric surface distance, in mm.
        surface_dice: share of both surfaces within a tolerance of the other.
    """

    tp: int
    fp: int
    fn: int
    tn: int
    hd95: float | None
    assd: float | None
    surface_dice: float | None

    @classmethod
    def of(
        cls,
        prediction: Mask,
        reference: Mask,
        spacing: Sequence[float] | None,
        tolerance: float,
        annotated: Mask | None = None,
    ) -> Self:
        """Compare two masks.

        Args:
            prediction: bool [slices, height, width].
            reference: likewise.
            spacing: of slices, rows and columns, in mm; None if the distance of the slices is unknown: then the
                metrics of surfaces are undefined.
            tolerance: of surface Dice, in mm.
            annotated: pixels that count, likewise; None = all. The others are background in both masks.
        """
        if annotated is not None:
            prediction, reference = prediction & annotated, reference & annotated
        tp, predicted, true = (int(np.count_nonzero(m)) for m in (prediction & reference, prediction, reference))
        pixels = reference.size if annotated is None else int(np.count_nonzero(annotated))
        counts = tp, predicted - tp, true - tp, pixels - predicted - true + tp
        if spacing is None or not (predicted or true):
            return cls(*counts, None, None, None)
        surface = surface_scores(prediction, reference, spacing, tolerance)
        return cls(*counts, surface.hd95, surface.assd, surface.surface_dice)

    @property
    def n_pred(self) -> int:
        """Number of predicted pixels."""
        return self.tp + self.fp

    @property
    def n_ref(self) -> int:
        """Number of pixels of the reference."""
        return self.tp + self.fn

    @property
    def state(self) -> State:
        """Which masks have pixels: both, the reference only (missed), the prediction only (spurious), none (empty)."""
        if self.n_ref:
            return "both" if self.n_pred else "missed"
        return "spurious" if self.n_pred else "empty"

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN): 0 if exactly one mask is empty.

        Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x.
        """
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN)."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def volume_difference(self) -> float | None:
        """(n_pred − n_ref) / n_ref: above 0 if the prediction is too large; undefined without a reference.

        Heimann et al. 2009, doi:10.1109/TMI.2009.2013851, as a share instead of percent.
        """
        return _ratio(self.n_pred - self.n_ref, self.n_ref)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
