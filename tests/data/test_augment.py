"""Augmentation of batches: the same for the same seed; masks stay masks; as strong as it is called."""

import pytest
import torch

from greenseg.data.augment import RandomBiasField, apply, build
from greenseg.settings import Settings

NAMES = ["none", "flips", "light", "strong"]


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, 1, 32, 32)
    masks[:, :, 8:20, 10:26] = 1
    return masks * 0.5 + torch.rand(count, 1, 32, 32, generator=generator) * 0.3, masks


def augmented(name: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return apply(build(Settings.of({"augment": name})), *batch())


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str) -> None:
    one, same, other = augmented(name, 1), augmented(name, 1), augmented(name, 2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert torch.equal(one[0], other[0]) == (name == "none")


@pytest.mark.parametrize("name", NAMES)
def test_masks_stay_masks_and_images_stay_in_range(name: str) -> None:
    for seed in range(5):
        images, masks = augmented(name, seed)
        assert images.shape == masks.shape == (6, 1, 32, 32)
        assert set(masks.flatten().tolist()) <= {0.0, 1.0}
        assert masks.sum() > 0
        assert images.dtype == torch.float32
        assert torch.isfinite(images).all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_slice_is_changed_in_its_own_way_and_its_mask_with_it(name: str) -> None:
    images, masks = batch()
    images = masks + 0  # the image shows where its mask is
    torch.manual_seed(0)
    changed, moved = apply(build(Settings.of({"augment": name})), images.clone(), masks.clone())
    assert len({tuple(mask.flatten().tolist()) for mask in moved}) > 1
    inside = changed[moved > 0.5].mean()
    outside = changed[moved < 0.5].mean()
    assert inside > 0.75
    assert outside < 0.15


def test_none_costs_nothing() -> None:
    images, masks = batch()
    assert build(Settings.of({"augment": "none"})) is None
    assert apply(None, images, masks) == (images, masks)


def test_light_moves_less_than_strong() -> None:
    def share_moved(name: str) -> float:
        return sum(float((augmented(name, seed)[1] - batch()[1]).abs().mean()) for seed in range(10))

    # Flips alone move the mask; turned back, what is left is rotation, scale and shift.
    assert share_moved("light") < share_moved("strong")


def test_the_bias_field_is_smooth_and_about_1_on_average() -> None:
    torch.manual_seed(0)
    flat = torch.full((400, 1, 64, 64), 0.2)
    fields = RandomBiasField(0.3, p=1.0)(flat) / 0.2
    assert fields.mean() == pytest.approx(1, abs=0.1)
    assert fields.log().mean() == pytest.approx(0, abs=0.05)
    assert (fields > 0).all()
    for axis in (2, 3):
        steps = fields.log().diff(dim=axis).abs()
        assert steps.max() < 0.12, "no jump between neighbours"
    assert fields.amax((1, 2, 3)).sub(fields.amin((1, 2, 3))).median() > 0.2, "and yet no constant"
    assert torch.equal(RandomBiasField(0.3, p=0.0)(flat), flat)
    assert RandomBiasField(0.3, p=1.0)(torch.ones(9, 1, 8, 8)).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_classes_stay_classes_and_go_with_all_channels(name: str) -> None:
    values = [0.0, 1.0, 2.0, 7.0, 254.0, 255.0]
    masks = torch.zeros(6, 1, 32, 32)
    for place, value in enumerate(values):
        masks[:, :, 4 * place + 4 : 4 * place + 8, 6:24] = value
    for seed in range(5):
        torch.manual_seed(seed)
        images, changed = apply(build(Settings.of({"augment": name})), masks.expand(-1, 3, -1, -1) / 255, masks.clone())
        assert images.shape == (6, 3, 32, 32)
        assert set(changed.flatten().tolist()) <= set(values), "no mixture of classes"
        # Where the mask is filled up, it is background; the area without annotation only moves, or scales.
        assert (changed == 255).sum() < 2 * (masks == 255).sum()
        assert images[changed.expand_as(images) == 255].mean() > 0.75
        assert images[changed.expand_as(images) == 0].mean() < 0.15


def test_a_bias_field_is_the_same_in_all_channels() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16) * 0.2 + 0.1
    fields = RandomBiasField(0.3, p=1.0)(images) / images
    torch.testing.assert_close(fields[:, 1:], fields[:, :1].expand(-1, 2, -1, -1))
    assert not torch.allclose(fields[0], fields[1])
