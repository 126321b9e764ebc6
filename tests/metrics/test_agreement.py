"""The agreement of two masks, against other implementations."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from greenseg.metrics.agreement import Agreement
from greenseg.metrics.surface import hausdorff_95, surface_scores
from tests.metrics.reference import dice_of, hd95_of, surfaces_by_itk, surfaces_of

SPACINGS = st.tuples(st.floats(0.5, 5), st.floats(0.5, 5), st.floats(0.5, 5))
SHAPES = st.tuples(st.integers(2, 5), st.integers(2, 9), st.integers(2, 9))


def pair_of(seed: int, shape: tuple[int, ...], density: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prediction, reference = (rng.random(shape) < density for _ in range(2))
    prediction.flat[0] = reference.flat[-1] = True
    return prediction, reference


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), SHAPES, SPACINGS, st.sampled_from([0.05, 0.5, 0.9]), st.floats(0, 4))
def test_metrics_are_those_of_other_implementations(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, float, float], density: float, tolerance: float
) -> None:
    prediction, reference = pair_of(seed, shape, density)
    found = Agreement.of(prediction, reference, spacing, tolerance)
    pixels = torch.from_numpy(prediction), torch.from_numpy(reference)
    assert found.dice == pytest.approx(dice_of(prediction, reference))
    assert found.dice == pytest.approx(float(binary_f1_score(*pixels)))
    assert found.iou == pytest.approx(float(binary_jaccard_index(*pixels)))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)))
    assert found.dice == pytest.approx(overlap.GetDiceCoefficient(1))
    assert found.volume_difference == pytest.approx(prediction.sum() / reference.sum() - 1)
    assert found.hd95 == pytest.approx(hd95_of(prediction, reference, spacing))
    assert found.hd95 == hausdorff_95(prediction, reference, spacing), "to the bit"
    for other in (surfaces_of, surfaces_by_itk):
        assd, surface_dice = other(prediction, reference, spacing, tolerance)
        assert found.assd == pytest.approx(assd, abs=1e-4)  # ITK's maps are float32
        within = [surfaces_of(prediction, reference, spacing, tolerance + step)[1] for step in (-1e-4, 1e-4)]
        assert within[0] <= found.surface_dice <= within[1]  # type: ignore[operator]
        assert within[0] <= surface_dice <= within[1]
    counts = (found.tp, found.fp, found.fn, found.tn)
    assert sum(counts) == reference.size
    assert (found.n_pred, found.n_ref) == (prediction.sum(), reference.sum())


def test_a_distance_equal_to_the_tolerance_is_within_it() -> None:
    prediction, reference = np.zeros((2, 1, 1, 30), bool)
    prediction[..., 2], reference[..., 22] = True, True
    stored = float(np.float32(0.1))  # as in NIfTI: 20 pixels are 2.00000003 mm
    assert surface_scores(prediction, reference, (1, 1, stored), 2.0).surface_dice == 1
    assert surface_scores(prediction, reference, (1, 1, stored), 1.99).surface_dice == 0


def test_an_empty_mask() -> None:
    nothing, something = np.zeros((4, 8, 8), bool), np.zeros((4, 8, 8), bool)
    something[1:3, 2:4, 2:4] = True
    worst = math.hypot(4 * 3, 8, 8)
    for prediction, reference, state in ((nothing, something, "missed"), (something, nothing, "spurious")):
        found = Agreement.of(prediction, reference, (3, 1, 1), 1000)
        assert (found.state, found.dice, found.iou, found.surface_dice) == (state, 0, 0, 0)
        assert found.hd95 == found.assd == pytest.approx(worst)
    assert Agreement.of(nothing, something, (3, 1, 1), 2).volume_difference == -1
    assert Agreement.of(something, nothing, (3, 1, 1), 2).volume_difference is None
    found = Agreement.of(nothing, nothing, (3, 1, 1), 2)
    assert (found.state, found.tn) == ("empty", nothing.size)
    assert (found.dice, found.iou, found.hd95, found.assd, found.surface_dice) == (None,) * 5


def test_a_single_slice_has_the_distances_in_its_plane() -> None:
    reference = np.zeros((1, 20, 20), bool)
    reference[0, 4:12, 4:12] = True
    found = Agreement.of(np.roll(reference, 2, 2), reference, (30, 1, 1.5), 2.9)
    assd, surface_dice = surfaces_by_itk(np.roll(reference, 2, 2)[0], reference[0], (1, 1.5), 2.9)
    assert found.hd95 == 3
    assert found.assd == pytest.approx(assd)
    assert found.surface_dice == pytest.approx(surface_dice)
    assert 0 < surface_dice < 1
    assert Agreement.of(reference, reference, None, 2).hd95 is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), SHAPES)
def test_pixels_without_annotation_count_nowhere(seed: int, shape: tuple[int, int, int]) -> None:
    prediction, reference = pair_of(seed, shape, 0.4)
    annotated = np.random.default_rng(seed + 1).random(shape) < 0.7
    found = Agreement.of(prediction, reference, (3, 1, 1), 2, annotated)
    assert found.tp + found.fp + found.fn + found.tn == annotated.sum()
    changed = np.where(annotated, prediction, ~prediction)
    assert Agreement.of(changed, reference, (3, 1, 1), 2, annotated) == found
