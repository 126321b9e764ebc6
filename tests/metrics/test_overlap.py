"""Dice and IoU of volumes against their definition."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.data.loader import NOBODY
from greenseg.metrics.overlap import VolumeOverlap


def score(
    metric: VolumeOverlap, prediction: np.ndarray, truth: np.ndarray, subject: np.ndarray, order: np.ndarray
) -> None:
    for part in np.array_split(order, 3):
        arrays = (prediction[part, None], truth[part, None].astype(np.float32), subject[part])
        metric.update(*(torch.from_numpy(a) for a in arrays))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0]))
def test_overlap_is_that_of_whole_volumes_in_any_order(seed: int, subjects: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    slices = int(rng.integers(1, 12))
    subject = rng.integers(0, subjects, slices)
    truth, prediction = (rng.random((slices, 4, 4)) < density for _ in range(2))
    metric = VolumeOverlap([f"s{i}" for i in range(subjects)])
    score(metric, prediction, truth, subject, rng.permutation(slices))
    got = metric.compute()

    dice, iou = [], []
    for s in range(subjects):
        p, t = prediction[subject == s], truth[subject == s]
        union, both = (p | t).sum(), (p & t).sum()
        if union:
            dice.append(2 * both / (p.sum() + t.sum()))
            iou.append(both / union)
    if dice:
        np.testing.assert_allclose(float(got["dice"]), np.mean(dice))
        np.testing.assert_allclose(float(got["iou"]), np.mean(iou))
    else:
        assert torch.isnan(got["dice"]), "no brain anywhere, none predicted: nothing was measured"


def test_empty_slices_and_padding_add_nothing() -> None:
    truth = np.zeros((3, 4, 4), dtype=bool)
    truth[0, :2] = True
    prediction = np.zeros_like(truth)
    prediction[0, :1] = True
    plain, padded = VolumeOverlap(["a"]), VolumeOverlap(["a"])
    score(plain, prediction[:1], truth[:1], np.zeros(1, dtype=np.int64), np.arange(1))
    prediction[2] = True  # padding: whatever is predicted there
    score(padded, prediction, truth, np.array([0, 0, NOBODY]), np.arange(3))
    assert float(plain.compute()["dice"]) == float(padded.compute()["dice"]) == 2 * 4 / (4 + 8)
