"""HD95 against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.metrics.surface import hausdorff_95
from greenseg.training.predictions import predicted


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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_predicted_class_has_the_largest_logit(memory_format: torch.memory_format) -> None:
    logits = torch.randn(3, 5, 8, 8).to(memory_format=memory_format)
    expected = np.argmax(logits.numpy(), 1)[:, None]
    assert predicted(logits).dtype == torch.uint8
    np.testing.assert_array_equal(predicted(logits), expected)
    np.testing.assert_array_equal(predicted(logits[:, :1]), logits[:, :1].numpy() > 0)
    two = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1]], 1)
    assert torch.equal(predicted(two), predicted(logits[:, :1])), "a sigmoid is a softmax with 0 for the background"
