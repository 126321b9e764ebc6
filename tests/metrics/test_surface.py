"""HD95 against its definition, and the masks that it is told from."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.metrics.surface import hausdorff_95
from greenseg.training.predictions import Predictions, predicted, unpacked


def surface(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask with a direct neighbour outside it, one by one; along axes of one pixel there are none."""
    axes = [axis for axis in range(3) if mask.shape[axis] > 1 or axis > 0]
    padded = np.pad(mask, 1)
    points = []
    for point in np.argwhere(mask):
        at = [tuple(point + 1 + step * (np.arange(3) == axis)) for axis in axes for step in (-1, 1)]
        if not all(padded[neighbour] for neighbour in at):
            points.append(point)
    return np.array(points)


def naive(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> float:
    one, other = (surface(mask) * np.array(spacing) for mask in (prediction, truth))
    apart = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return float(max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9)),
    st.tuples(st.floats(0.5, 5), st.floats(0.5, 5), st.floats(0.5, 5)),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_hausdorff_95_is_its_definition(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, float, float], density: float
) -> None:
    rng = np.random.default_rng(seed)
    prediction, truth = (rng.random(shape) < density for _ in range(2))
    prediction[0, 0, 0] = truth[-1, -1, -1] = True
    expected = naive(prediction, truth, spacing)
    assert hausdorff_95(prediction, truth, spacing) == pytest.approx(expected)
    assert hausdorff_95(truth, prediction, spacing) == pytest.approx(expected), "symmetric"
    assert hausdorff_95(truth, truth, spacing) == 0


def test_a_shift_is_as_far_as_the_spacing_says() -> None:
    truth = np.zeros((12, 20, 20), dtype=bool)
    truth[2:8, 4:10, 4:10] = True
    for axis, spacing in enumerate((3.0, 1.5, 1.5)):
        assert hausdorff_95(np.roll(truth, 2, axis), truth, (3.0, 1.5, 1.5)) == pytest.approx(2 * spacing)


def test_nothing_predicted_is_as_bad_as_can_be_and_nothing_at_all_is_left_out() -> None:
    truth, nothing = np.ones((4, 8, 8), dtype=bool), np.zeros((4, 8, 8), dtype=bool)
    worst = math.hypot(4 * 3, 8, 8)
    assert hausdorff_95(nothing, truth, (3, 1, 1)) == hausdorff_95(truth, nothing, (3, 1, 1)) == pytest.approx(worst)
    assert math.isnan(hausdorff_95(nothing, nothing, (3, 1, 1)))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_predictions_come_back_as_they_were(slices: int, batch: int, seed: int, channels_last: bool) -> None:
    masks = torch.from_numpy(np.random.default_rng(seed).random((slices, 1, 32, 32)) < 0.5)
    predictions = Predictions()
    for part in torch.split(masks, batch):
        predictions.add(part.to(memory_format=torch.channels_last) if channels_last else part)
    packed = predictions.gathered()
    assert packed.nbytes == slices * 32 * 32 // 8
    np.testing.assert_array_equal(unpacked(packed, slices, 32), masks[:, 0].numpy())
    predictions.clear()
    predictions.add(masks[:1])
    assert len(predictions.gathered()) == 1


def test_predictions_of_all_ranks_lie_in_the_order_of_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.rand(6, 1, 8, 8) < 0.5  # dealt out in turns; the last one fills up
    mine, theirs = Predictions(), Predictions()
    mine.add(masks[0::2])
    theirs.add(masks[1::2])
    other = theirs.gathered()

    def all_gather(ranks: list[torch.Tensor], own: torch.Tensor) -> None:
        for rank, value in zip(ranks, (own, other), strict=True):
            rank.copy_(value)

    fake = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 2, all_gather=all_gather
    )
    monkeypatch.setattr(torch, "distributed", fake)
    np.testing.assert_array_equal(unpacked(mine.gathered(), 5, 8), masks[:5, 0].numpy())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 254), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_predictions_of_classes_take_as_few_bits_as_they_can(classes: int, slices: int, batch: int, seed: int) -> None:
    masks = np.random.default_rng(seed).integers(0, classes + 1, (slices, 1, 8, 8)).astype(np.uint8)
    predictions = Predictions(classes)
    for part in torch.split(torch.from_numpy(masks), batch):
        predictions.add(part)
    packed = predictions.gathered()
    assert packed.nbytes == math.ceil(math.log2(classes + 1)) * slices * 8 * 8 // 8
    np.testing.assert_array_equal(unpacked(packed, slices, 8), masks[:, 0])


def test_a_single_class_is_packed_as_it_was() -> None:
    masks = np.random.default_rng(0).random((5, 1, 16, 16)) < 0.5
    predictions = Predictions()
    predictions.add(torch.from_numpy(masks))
    np.testing.assert_array_equal(predictions.gathered(), np.packbits(masks.reshape(5, -1), axis=1, bitorder="little"))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_predicted_class_has_the_largest_logit(memory_format: torch.memory_format) -> None:
    logits = torch.randn(3, 5, 8, 8).to(memory_format=memory_format)
    expected = np.argmax(logits.numpy(), 1)[:, None]
    assert predicted(logits).dtype == torch.uint8
    np.testing.assert_array_equal(predicted(logits), expected)
    np.testing.assert_array_equal(predicted(logits[:, :1]), logits[:, :1].numpy() > 0)
    two = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1]], 1)
    assert torch.equal(predicted(two), predicted(logits[:, :1])), "a sigmoid is a softmax with 0 for the background"
