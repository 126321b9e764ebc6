"""Which files make a volume, in which order, how far apart its slices are, and what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.data.check import check
from greenseg.data.content import Content
from greenseg.data.splits import Case
from greenseg.data.stacks import Part, volumes
from greenseg.errors import UserError
from greenseg.settings import Settings


def part(name: str, at: float = 0.0, *, slices: int = 1, distance: float | None = 4.0, constant: float | None = None,
         normal: tuple[float, ...] = (0, 0, 1)) -> Part:  # fmt: skip
    return Part(Path(name), slices, distance, (1.0, 2.0, at), normal, constant)


def names(parts: Sequence[Part]) -> list[list[str]]:
    return [[parts[number].path.name for number in volume.parts] for volume in volumes(parts)]


def wrong(parts: Sequence[Part]) -> str:
    with pytest.raises(UserError) as caught:
        volumes(parts)
    (problem,) = caught.value.problems
    return problem


def test_slices_without_positions_go_by_their_numbers() -> None:
    parts = [part(f"c1_slice{n}.nii") for n in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert names(parts) == [[f"c1_slice{n}.nii" for n in range(12)]]
    mixed = [part(f"z{n}.nii") for n in ("01", "10", "2", "3")]
    assert names(mixed) == [["z01.nii", "z2.nii", "z3.nii", "z10.nii"]]


def test_positions_go_before_numbers() -> None:
    parts = [part(f"c_slice{n}.nii", at) for n, at in ((0, 8.0), (1, 0.0), (2, 12.0), (3, 4.0))]
    assert names(parts) == [["c_slice1.nii", "c_slice3.nii", "c_slice0.nii", "c_slice2.nii"]]
    downwards = [part(f"c_slice{n}.nii", -4.0 * n) for n in range(12)]
    assert names(downwards) == [[f"c_slice{n}.nii" for n in range(12)]], "already in order"


def test_a_volume_is_in_one_folder_and_differs_in_one_number() -> None:
    parts = [part(f"t{t}_slice{n}.nii", 4.0 * n) for n in (0, 1, 10) for t in (1, 2)]
    parts = [p for p in parts if "slice10" not in p.path.name] + [part(f"t{t}_slice2.nii", 8.0) for t in (1, 2)]
    assert names(parts) == [[f"t{t}_slice{n}.nii" for n in range(3)] for t in (1, 2)]
    assert names([part(f"slice{n}_t{t}.nii", 4.0 * n) for n in (0, 1) for t in (1, 2)]) == [
        ["slice0_t1.nii", "slice1_t1.nii"], ["slice0_t2.nii", "slice1_t2.nii"]
    ]  # fmt: skip
    assert names([part(f"s{n}_t2.nii", 4.0 * n) for n in range(3)]) == [["s0_t2.nii", "s1_t2.nii", "s2_t2.nii"]]
    assert names([part(f"{folder}/{n}.nii", 4.0 * n) for folder in "ab" for n in (0, 1)]) == [["0.nii", "1.nii"]] * 2
    whole = [part("a.nii", slices=5), part("b.nii", slices=7)]
    assert [(v.slices, v.distance) for v in volumes(whole)] == [(5, 4.0), (7, 4.0)]


def test_the_distance_is_that_of_the_positions() -> None:
    """A header of one slice may hold its thickness, without the gap to the next one, or nothing at all (1 mm)."""
    assert [v.distance for v in volumes([part(f"s{n}", 5.0 * n) for n in range(4)])] == [5.0]
    assert [v.distance for v in volumes([part(f"s{n}", 4.001 * n) for n in range(4)])] == [4.0], "rounding"
    assert [v.distance for v in volumes([part(f"s{n}") for n in range(4)])] == [4.0]
    assert [v.distance for v in volumes([part(f"s{n}", distance=None) for n in range(4)])] == [None]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([part(f"s{n}", 4.0 * n) for n in (0, 1, 3, 4)],
         "1 slice is missing: 8 mm between s1 (at 4 mm) and s3 (at 12 mm), 4 mm otherwise"),
        ([part(f"s{n}", at) for n, at in enumerate((0, 4, 10, 14))], "not evenly spaced: 6 mm between s1"),
        ([part(f"s{n}", at) for n, at in enumerate((0, 4, 4, 8))], "s1 and s2 are at the same position"),
        ([part("s0", 0.0), part("s1", 4.0, normal=(0, 1, 0))], "s1 is rotated against s0"),
        ([part("s1"), part("s01"), part("s2")], "s01 and s1 have the same number, and their headers no position"),
        ([part("s0", slices=6, constant=0.0)], "s0: every pixel is 0"),
        ([part("s0", constant=3.0), part("s1", constant=3.0)], "s0: every pixel in it and in the 1 other slice"),
        ([part("s0", slices=6, constant=-2.5), part("s1", slices=6)], "s0: every pixel is -2.5"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_said(parts: list[Part], words: str) -> None:
    assert words in wrong(parts)


def test_numbers_that_are_missing_are_noted() -> None:
    """Without positions they may mean a gap, or a habit of counting."""
    (volume,) = volumes([part(f"c_slice{n}") for n in (1, 2, 3, 5, 6)])
    assert volume.note.startswith(".: no slice between c_slice3 and c_slice5, and the headers have no positions")
    assert [v.note for v in volumes([part(f"c_slice{n}") for n in (1, 3, 5, 7)])] == [""]


def test_an_empty_slice_of_a_volume_is_nothing_wrong() -> None:
    assert names([part("s0", constant=0.0), part("s1")]) == [["s0", "s1"]]


def slice_files(root: Path, numbers: Sequence[int], positions: bool) -> tuple[Path, np.ndarray]:
    """A file a slice for each of three cases; the masks of the first, by number."""
    rng = np.random.default_rng(0)
    mask = (rng.uniform(size=(len(numbers), 16, 16)) > 0.5).astype(np.uint8)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for case in range(3):
        for z, number in enumerate(numbers):
            grey = rng.integers(1, 99, mask[0].shape).astype(np.int16)
            for name, array in (
                (f"images/c{case}_slice{number}", grey),
                (f"masks/c{case}_slice{number}_mask", mask[z]),
            ):
                image = sitk.GetImageFromArray(array[None])
                image.SetSpacing((4.0, 4.0, 6.0))
                image.SetOrigin((0.0, 0.0, 6.0 * number if positions else 0.0))
                sitk.WriteImage(image, str(root / f"{name}.nii"))
    return root, mask


@pytest.mark.parametrize("positions", [True, False])
def test_slices_are_prepared_in_their_order(positions: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    data, mask = slice_files(tmp_path / "data", range(12), positions)
    slices = cache.prepare(Settings.of({"data": str(data), "image_size": 32, "spacing": 4.0}))
    (first,) = [s for s in slices.index["subjects"] if s["name"] == "c0"]
    assert first["volumes"] == [{"slices": 12, "distance": 6.0}]
    assert (slices.masks[first["first"] :][:12, 8:24, 8:24] == mask).all()


def test_a_gap_between_files_of_slices_is_refused_by_check_and_train(tmp_path: Path) -> None:
    data, _ = slice_files(tmp_path / "data", (0, 1, 2, 4, 5), positions=True)
    problems = check(data).problems
    assert len(problems) == 3, "one a case"
    assert "1 slice is missing: 12 mm between c0_slice2.nii" in problems[0]
    with pytest.raises(UserError) as caught:
        cache.prepare(Settings.of({"data": str(data), "image_size": 32, "spacing": 4.0}))
    assert sorted(caught.value.problems) == sorted(problems)


def test_slices_that_lean_are_sheared() -> None:
    parts = [Part(Path(f"s_slice{n}.nii"), 1, 4.0, (1.5 * n, 2.0, 4.0 * n), (0, 0, 1), None) for n in range(6)]
    assert "sheared" in (said := wrong(parts))
    assert "s_slice0.nii and s_slice5.nii are 7.5 mm apart" in said
    assert "at 69.44°" in said
    assert volumes([Part(p.path, 1, 4.0, (0.0, 2.0, p.origin[2]), (0, 0, 1.01), None) for p in parts])


def test_numbers_may_be_longer_than_64_bits() -> None:
    """Of a UID, or a time stamp to the microsecond."""
    stem = "2023010112345678901234"
    assert names([part(f"c_{stem}{n:02d}.nii") for n in (0, 2, 1)]) == [[f"c_{stem}{n:02d}.nii" for n in range(3)]]


@pytest.mark.parametrize("at", [0.0, 4.0])
def test_a_number_that_changes_with_the_slice_tells_no_volume(at: float) -> None:
    for form in ("s_12{z:02d}30_slice{z}", "s_slice{z}_12{z:02d}30", "s_slice{z}_a{z}", "s_slice{z}_z{z}.5mm"):
        made = [form.format(z=z) for z in range(12)]
        assert names([part(made[z], at * z) for z in (5, 0, 11, *range(1, 5), *range(6, 11))]) == [made], form
    stamped = [part(f"e{e}_{1230 + 10 * z + e}_slice{z}", at * z) for e in (1, 2) for z in range(3)]
    assert [[name[:2] for name in stack] for stack in names(stamped)] == [["e1"] * 3, ["e2"] * 3]
    backwards = [part(f"s_{1230 - z}_slice{z}") for z in range(3)]
    assert [name[-1] for (*stack,) in names(backwards) for name in stack] == ["0", "1", "2"], "not by the time stamp"


def test_distances_that_differ_by_rounding_are_one_volume() -> None:
    (volume,) = volumes([part(f"s{n}", 4.0 * n, distance=4.0 if n % 2 else 4.01) for n in range(12)])
    assert (volume.slices, volume.distance) == (12, 4.0)
    assert len(volumes([part(f"s{n}", 4.0 * n, distance=3.0 + n) for n in range(2)])) == 2


def test_other_names_of_the_same_slices_are_another_content_but_another_place_is_not(tmp_path: Path) -> None:
    def content(place: str, form: str, count: int = 3) -> tuple[str, str, str]:
        root, files = tmp_path / place, []
        for z in range(count):
            image = root / form.format(z=z, turned=(z * 2) % 3)
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(bytes([z]))
            files.append((image, image))
        made = Content.of([Case("s", "train", tuple(files))])
        settings = Settings.of({})
        return made.digest, made.slices_key(settings), made.before_it_was_named().slices_key(settings)

    plain = content("a", "s_slice{z}.nii")
    for same in ("s_slice{z}.nii", "t_{z}.nii", "deep/s_slice{z}_1{z}.nii"):
        assert content("b" + same, same) == plain
    for other in ("s_slice{turned}.nii", "{z}/s.nii"):
        assert all(a != b for a, b in zip(content("c" + other, other)[:2], plain[:2], strict=True))
        assert content("d" + other, other)[2] == plain[2], "as an earlier version named it"
    assert content("e", "x.nii", 1) == content("f", "deep/y7.nii", 1)
