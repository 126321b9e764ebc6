"""Losses fall towards the right segmentation, and differ from one another."""

import pytest
import torch

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
