"""Slices on another grid: whole pixels where nothing is to be resampled, masks by area, images without aliasing."""

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.grid import foreground_outside, from_grid, mask_to_grid, to_grid


def volume(array: np.ndarray, pixel: tuple[float, float] = (1.5, 1.5)) -> sitk.Image:
    """[slice, y, x] with a spacing of x and y."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((*pixel, 4.0))
    return image


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 1000, shape).astype(np.int16)


def by_area(mask: np.ndarray, pixel: float, size: int, spacing: float) -> np.ndarray:
    """At least half of each pixel of a centred grid, counted exactly on a grid of 0.05 mm."""
    fine = np.kron(mask, np.ones((round(pixel * 20),) * 2, int))
    step = round(spacing * 20)
    before = [(n - size * step) // 2 for n in fine.shape]
    fine = np.pad(fine, [(max(0, -b), max(0, size * step - n + b)) for n, b in zip(fine.shape, before, strict=True)])
    top, left = (max(0, b) for b in before)
    fine = fine[top : top + size * step, left : left + size * step]
    return np.asarray(2 * fine.reshape(size, step, size, step).sum((1, 3)) >= step * step)


# ── whole pixels


@pytest.mark.parametrize("height", [31, 32, 48, 49, 100])
@pytest.mark.parametrize("width", [40, 41, 127])
@pytest.mark.parametrize("size", [32, 33, 48, 64, 129])
@pytest.mark.parametrize("pixel", [1.5, 1.4995, 1.50001, 0.02])
def test_pixels_of_the_wanted_size_are_only_cut_or_padded(height: int, width: int, size: int, pixel: float) -> None:
    values = noise(2, height, width)
    spacing = 0.02 if pixel == 0.02 else 1.5
    on_grid = to_grid(volume(values, (pixel, pixel)), size, spacing)
    whole = np.pad(values, ((0, 0), (size, size), (size, size)))
    top, left = (size + (n - size) // 2 for n in (height, width))
    np.testing.assert_array_equal(on_grid, whole[:, top : top + size, left : left + size])


def test_a_mask_on_an_odd_number_of_pixels_keeps_its_volume() -> None:
    mask = (noise(6, 49, 41) > 700).astype(np.uint8)
    for size in (64, 65):
        assert mask_to_grid(volume(mask), size, 1.5).sum() == mask.sum()


def test_an_axis_that_has_the_spacing_is_not_resampled_with_the_other_one() -> None:
    values = noise(2, 49, 42)
    on_grid = to_grid(volume(np.repeat(values, 2, axis=2), (0.75, 1.5)), 64, 1.5)
    np.testing.assert_array_equal(on_grid, to_grid(volume(values), 64, 1.5))
    lines = np.repeat(noise(2, 49, 1), 42, axis=2)
    stretched = to_grid(volume(lines, (2.0, 1.5)), 64, 1.5)  # 42 pixels become 56; 64 - 49 = 8 + 7
    np.testing.assert_array_equal(stretched[:, 8 : 8 + 49, 4:60], np.repeat(lines[:, :, :1], 56, axis=2))


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("pixels", [47, 48, 49])
def test_no_pixel_straddles_two_where_one_spacing_is_the_others_multiple(factor: int, pixels: int) -> None:
    values = noise(1, pixels, pixels)
    side = 32 * factor
    before = (side - pixels + 1) // 2 if side > pixels else -((pixels - side) // 2)
    fine = np.pad(values[0], side)[(top := side - before) : top + side, top : top + side]
    means = fine.reshape(32, factor, 32, factor).mean((1, 3))
    # 0.3 mm in float32 is not a fifth of 1.5 mm, but for rounding.
    on_grid = to_grid(volume(values, (float(np.float32(1.5 / factor)),) * 2), 32, 1.5)
    np.testing.assert_allclose(on_grid[0], means, rtol=1e-5)
    mask = (values > 500).astype(np.uint8)
    coarse = mask_to_grid(volume(mask, (1.5 * factor,) * 2), 64 * factor, 1.5)
    assert coarse.sum() == mask.sum() * factor**2
    odd = mask_to_grid(volume(mask, (1.5 * factor,) * 2), 64 * factor + 1, 1.5)
    assert odd.sum() == mask.sum() * factor**2


def test_direction_and_origin_do_not_matter() -> None:
    values, plain = noise(2, 49, 41), None
    for direction in ((1, 0, 0, 0, 1, 0, 0, 0, 1), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)):
        image = volume(values)
        image.SetDirection(direction)
        image.SetOrigin((3.3, -50.0, 7.0))
        on_grid = to_grid(image, 64, 1.5)
        plain = on_grid if plain is None else plain
        np.testing.assert_array_equal(on_grid, plain)


# ── masks by area


@pytest.mark.parametrize(
    ("pixel", "spacing", "pixels", "size"),
    [(0.5, 1.5, 120, 32), (0.6, 1.5, 128, 48), (1.0, 1.5, 96, 64), (1.0, 2.25, 108, 48), (0.75, 1.5, 64, 32),
     (3.0, 2.0, 64, 96), (2.5, 1.5, 36, 60), (1.0, 1.5, 60, 64)],
)  # fmt: skip
@pytest.mark.parametrize("pattern", ["noise", "stripes", "checkers", "rings"])
def test_a_mask_is_1_where_at_least_half_of_the_pixel_is(
    pattern: str, pixel: float, spacing: float, pixels: int, size: int
) -> None:
    y, x = np.indices((pixels, pixels))
    mask = {
        "noise": noise(pixels, pixels) > 500,
        "stripes": x % 3 == 0,
        "checkers": (x + y) % 2 == 0,
        "rings": np.hypot(x - pixels / 2 + 0.3, y - pixels / 2) // 2 % 2 == 0,
    }[pattern].astype(np.uint8)
    exact = by_area(mask, pixel, size, spacing)
    np.testing.assert_array_equal(mask_to_grid(volume(mask[None], (pixel, pixel)), size, spacing)[0], exact)


# ── images


@pytest.mark.parametrize("spacing", [1.0, 1.2, 1.5, 2.3])
def test_an_image_whose_pixels_grow_is_a_mean_over_them(spacing: float) -> None:
    values = noise(1, 97, 96).astype(np.float32)
    grown = to_grid(volume(values, (0.5, 0.5)), 64, spacing)
    assert grown.sum() * spacing**2 == pytest.approx(values.sum() * 0.5**2, rel=1e-4)
    stripes = np.where(np.arange(96) % 2 == 0, 200, 0)[None, None].repeat(96, 1).astype(np.float32)
    inner = to_grid(volume(stripes, (0.5, 0.5)), 32, 1.0)[0, 8:24, 8:24]
    np.testing.assert_allclose(inner, 100, rtol=1e-5)


@pytest.mark.parametrize("spacing", [0.4, 1.0])
def test_an_image_whose_pixels_shrink_is_interpolated_linearly(spacing: float) -> None:
    ramp = (np.arange(30.0)[None, :, None] + 2 * np.arange(28.0)[None, None, :]).astype(np.float32)
    inner = to_grid(volume(ramp), 8, spacing)[0]
    np.testing.assert_allclose(np.diff(inner, axis=0), spacing / 1.5, rtol=1e-4)
    np.testing.assert_allclose(np.diff(inner, axis=1), 2 * spacing / 1.5, rtol=1e-4)


@pytest.mark.parametrize(("size", "spacing"), [(32, 1.5), (33, 1.5), (16, 3.0), (20, 2.0)])
def test_foreground_outside_is_what_the_grid_does_not_keep(size: int, spacing: float) -> None:
    mask = np.ones((3, 49, 41), np.uint8)
    brain, outside = foreground_outside(volume(mask), size, spacing)
    kept = mask_to_grid(volume(mask), size, spacing).sum() * spacing**2 * 4
    assert brain == mask.sum() * 1.5**2 * 4
    assert brain - outside == pytest.approx(kept, rel=0.07 if spacing == 2.0 else 1e-9)


# ── and back


@pytest.mark.parametrize("size", [32, 48, 65])
@pytest.mark.parametrize(("rows", "columns"), [(31, 40), (100, 48), (48, 48)])
def test_where_pixels_coincide_all_of_the_grid_comes_back_as_it_was(rows: int, columns: int, size: int) -> None:
    values = noise(2, rows, columns).astype(np.float32)
    back = from_grid(to_grid(volume(values), size, 1.5), (rows, columns), (1.5, 1.5), 1.5)
    top, left = ((n - size) // 2 for n in (rows, columns))
    kept = np.zeros_like(values)
    inside = slice(max(top, 0), max(top, 0) + size), slice(max(left, 0), max(left, 0) + size)
    kept[:, *inside] = values[:, *inside]
    np.testing.assert_array_equal(back, kept)


def test_larger_pixels_are_means_and_smaller_ones_are_interpolated() -> None:
    grid = noise(2, 32, 32).astype(np.float32)
    means = from_grid(grid, (16, 8), (2.0, 4.0), 1.0)
    np.testing.assert_allclose(means, grid.reshape(2, 16, 2, 8, 4).mean((2, 4)), rtol=1e-5)
    ramp = np.tile(np.arange(32, dtype=np.float32), (2, 32, 1))
    finer = from_grid(ramp, (64, 64), (0.5, 0.5), 1.0)
    np.testing.assert_allclose(finer[:, :, 1:-1], np.tile(np.arange(62) / 2 + 0.25, (2, 64, 1)), rtol=1e-5)
