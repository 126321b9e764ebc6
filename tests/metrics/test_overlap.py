"""Dice and IoU of volumes against their definition."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from greenseg.classes import IGNORED
from greenseg.data.loader import NOBODY
from greenseg.metrics.overlap import VolumeOverlap
from tests.metrics.reference import dice_of


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


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_a_single_class_has_the_bits_that_it_had(seed: int, subjects: int) -> None:
    random = torch.Generator().manual_seed(seed)
    metric = VolumeOverlap([f"s{i}" for i in range(subjects)])
    prediction = torch.rand(subjects, 1, 8, 8, generator=random) < 0.4
    mask = torch.rand(subjects, 1, 8, 8, generator=random) < 0.4
    prediction[::7] = mask[::7] = False
    metric.update(prediction, mask.float(), torch.arange(subjects))
    got = metric.compute()

    each = [prediction & mask, prediction & ~mask, ~prediction & mask]
    tp, fp, fn = torch.stack([x.flatten(1).sum(1) for x in each], 1).double().unbind(1)
    volume_dice = 2 * tp / (2 * tp + fp + fn)
    then = {"dice": volume_dice.nanmean(), "iou": (tp / (tp + fp + fn)).nanmean(), "volume_dice": volume_dice.squeeze()}
    for name, expected in then.items():
        torch.testing.assert_close(got[name], expected, rtol=0, atol=0, equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 6), st.sampled_from([0.0, 0.2]))
def test_classes_are_measured_as_torchmetrics_and_sets_of_pixels_do(
    seed: int, subjects: int, classes: int, hidden: float
) -> None:
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), 2)
    truth, prediction = (rng.integers(0, classes + 1, (len(subject), 6, 6)).astype(np.uint8) for _ in range(2))
    for array in (truth, prediction):
        array[np.isin(subject, rng.integers(0, subjects, 1)) & (rng.random() < 0.5)] = 0  # a subject that lacks classes
    known = rng.random(truth.shape) >= hidden
    masks = np.where(known, truth, IGNORED)
    metric = VolumeOverlap([f"s{i}" for i in range(subjects)], classes, ignored=hidden > 0)
    score(metric, prediction, masks, subject, rng.permutation(len(subject)))
    got = metric.compute()

    scores = got["dice_of"].reshape(classes, subjects), got["iou_of"].reshape(classes, subjects)
    means = []
    for number in range(1, classes + 1):
        somewhere = (masks == number).any()
        defined = []
        for s in range(subjects):
            here = known[subject == s]
            mine, true = ((array[subject == s] == number) & here for array in (prediction, truth))
            dice, iou = (float(values[number - 1, s]) for values in scores)
            if somewhere and (mine | true).any():
                pixels = torch.from_numpy(mine[here]), torch.from_numpy(true[here])
                assert dice == pytest.approx(dice_of(mine, true))
                assert dice == pytest.approx(float(binary_f1_score(*pixels)))
                assert iou == pytest.approx(float(binary_jaccard_index(*pixels)))
                defined.append(dice)
            else:
                assert np.isnan(dice)
                assert np.isnan(iou)
        mean = float(got["class_dice"].reshape(-1)[number - 1])
        if defined:
            assert mean == pytest.approx(np.mean(defined))
            means.append(mean)
        else:
            assert np.isnan(mean)
    if means:
        assert float(got["dice"]) == pytest.approx(np.mean(means))
    with warnings.catch_warnings(action="ignore"):  # of a subject without any defined value
        of_volumes = np.nanmean(scores[0].numpy(), 0)
    np.testing.assert_allclose(got["volume_dice"].reshape(-1), of_volumes)


def test_a_class_that_no_subject_has_is_left_out_even_if_it_is_predicted() -> None:
    truth = np.zeros((2, 4, 4), dtype=np.uint8)
    truth[:, :2] = 1
    prediction = truth.copy()
    prediction[0, 3, 3] = 2
    metric = VolumeOverlap(["a", "b"], 2)
    score(metric, prediction, truth, np.arange(2), np.arange(2))
    got = metric.compute()
    assert float(got["dice"]) == float(got["iou"]) == 1
    assert got["class_dice"].isnan().tolist() == [False, True]
