"""Losses fall towards the right segmentation, and differ from one another."""

from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from greenseg.classes import IGNORED
from greenseg.losses import LOSSES

MASKS = torch.zeros(2, 1, 16, 16)
MASKS[:, :, 4:9, 5:12] = 1


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_leads_to_the_mask(name: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    loss, optimizer = LOSSES[name](), torch.optim.Adam([logits], lr=0.3)
    first = loss(logits, MASKS).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, MASKS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert ((logits > 0) == MASKS.bool()).all()
    assert loss(logits, MASKS).item() < 0.2 * first


def test_dice_and_cross_entropy_weigh_the_same() -> None:
    logits = torch.linspace(-3, 3, 512).reshape(2, 1, 16, 16)
    parts = LOSSES["dice"]()(logits, MASKS) + LOSSES["ce"]()(logits, MASKS)
    assert torch.equal(LOSSES["dice_ce"]()(logits, MASKS), parts)


def test_tversky_weighs_missed_foreground_more() -> None:
    missed = torch.where(MASKS.bool(), -9.0, -9.0)
    missed[:, :, 6, 6] = 9.0
    missed_loss = LOSSES["tversky"]()(missed, MASKS)
    extra = torch.where(MASKS.bool(), 9.0, -9.0)
    extra.view(-1)[torch.randperm(512, generator=torch.Generator().manual_seed(0))[:68]] = 9.0
    assert missed_loss > LOSSES["tversky"]()(extra, MASKS)


# ── several classes, and pixels without annotation

CLASSES = 3
SEVERAL = torch.zeros(2, 1, 16, 16)
SEVERAL[:, :, 1:6, 2:9], SEVERAL[0, :, 8:14, 1:6], SEVERAL[:, :, 9:15, 9:14] = 1, 2, 3
HIDDEN = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
HIDDEN[:, :, 5:9] = HIDDEN[1] = True


def logits_of(classes: int, seed: int = 0) -> torch.Tensor:
    outputs = 1 if classes == 1 else classes + 1
    return torch.randn(2, outputs, 16, 16, generator=torch.Generator().manual_seed(seed))


def masks_of(classes: int) -> torch.Tensor:
    return MASKS if classes == 1 else SEVERAL


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_several_classes_leads_to_the_mask(name: str) -> None:
    logits = logits_of(CLASSES).requires_grad_()
    loss, optimizer = LOSSES[name](CLASSES), torch.optim.Adam([logits], lr=0.3)
    first = loss(logits, SEVERAL).item()
    for _ in range(80):
        optimizer.zero_grad()
        loss(logits, SEVERAL).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    # Dice and Tversky leave the background out of the mean, but it counts as what is wrongly foreground.
    assert (logits.argmax(1, keepdim=True) == SEVERAL).all()
    assert loss(logits, SEVERAL).item() < 0.2 * first


def test_a_single_class_has_the_losses_that_it_had() -> None:
    logits = logits_of(1)
    binary: dict[str, Callable[..., Any]] = {
        "dice": smp.losses.DiceLoss("binary"),
        "ce": torch.nn.functional.binary_cross_entropy_with_logits,
        "focal": smp.losses.FocalLoss("binary"),
        "tversky": smp.losses.TverskyLoss("binary", alpha=0.3, beta=0.7),
        "lovasz": smp.losses.LovaszLoss("binary"),
    }
    binary["dice_ce"] = lambda logits, masks: binary["ce"](logits, masks) + binary["dice"](logits, masks)
    assert binary.keys() == LOSSES.keys()
    for name, expected in binary.items():
        for masks in (MASKS, torch.zeros_like(MASKS)):
            values, gradients = list[torch.Tensor](), list[torch.Tensor]()
            for loss in (LOSSES[name](), expected):
                mine = logits.clone().requires_grad_()
                values.append(loss(mine, masks))
                gradients += torch.autograd.grad(values[-1], mine)
            assert torch.equal(*values), name
            assert torch.equal(*gradients), name


def test_dice_is_the_mean_over_the_classes_of_the_batch() -> None:
    logits = logits_of(CLASSES)
    probabilities = logits.softmax(1)

    def expected(masks: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        scores = []
        for number in numbers:
            truth, mine = (masks[:, 0] == number).float(), probabilities[:, number]
            scores.append(1 - 2 * (truth * mine).sum() / (truth.sum() + mine.sum()))
        return torch.stack(scores).mean()

    loss = LOSSES["dice"](CLASSES)
    torch.testing.assert_close(loss(logits, SEVERAL), expected(SEVERAL, [1, 2, 3]))
    without = torch.where(SEVERAL == 2, 0.0, SEVERAL)
    torch.testing.assert_close(loss(logits, without), expected(without, [1, 3]))


@pytest.mark.parametrize("name", ["dice", "tversky", "lovasz"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_class_that_the_batch_lacks_has_no_share_in_the_loss(name: str, ignored: bool) -> None:
    one = torch.where(SEVERAL == 1, 1.0, 0.0)
    more = torch.cat([logits_of(1), logits_of(1, 1), torch.full((2, 2, 16, 16), -30.0)], 1)  # as if it knew of two only
    found = [LOSSES[name](classes, ignored)(more[:, : classes + 1], one) for classes in (3, 2)]
    torch.testing.assert_close(*found)
    assert torch.isfinite(LOSSES[name](3, ignored)(more, torch.zeros_like(one)))


@pytest.mark.parametrize("classes", [1, CLASSES])
@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_annotation_count_in_no_loss(name: str, classes: int) -> None:
    masks = torch.where(HIDDEN, float(IGNORED), masks_of(classes))
    loss = LOSSES[name](classes, True)
    found = []
    for filled in (0.0, 5.0):
        logits = torch.where(HIDDEN, filled, logits_of(classes)).requires_grad_()
        value = loss(logits, masks)
        (gradient,) = torch.autograd.grad(value, logits)
        assert not gradient[HIDDEN.expand_as(gradient)].any()
        assert gradient[~HIDDEN.expand_as(gradient)].any()
        found.append(value.detach())
    assert torch.equal(*found)

    # The same as on the other pixels alone: the rows that are annotated, of the first image.
    kept = [0, 1, 2, 3, 4, *range(9, 16)]
    alone = LOSSES[name](classes)(logits_of(classes)[:1, :, kept], masks_of(classes)[:1, :, kept])
    torch.testing.assert_close(found[0], alone)
    torch.testing.assert_close(
        loss(logits_of(classes), masks_of(classes)), LOSSES[name](classes)(logits_of(classes), masks_of(classes))
    )


@pytest.mark.parametrize("classes", [1, CLASSES])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_annotation_teaches_nothing(name: str, classes: int) -> None:
    logits = logits_of(classes).requires_grad_()
    value = LOSSES[name](classes, True)(logits, torch.full((2, 1, 16, 16), float(IGNORED)))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert not gradient.any()
