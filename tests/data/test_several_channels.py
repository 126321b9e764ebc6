"""Several channels: where they are found, how each is normalised, what distinguishes their data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.classes import IGNORED
from greenseg.data import cache
from greenseg.data.check import check
from greenseg.data.content import Content
from greenseg.data.grid import FloatArray, normalise, to_grid
from greenseg.data.loader import SliceDataset
from greenseg.data.splits import cases_of, split_csv
from greenseg.data.volume import read
from greenseg.errors import UserError
from tests.conftest import Command
from tests.data.datasets import (
    Array,
    grey,
    labelled,
    prepare,
    settings_for,
    write,
    write_bids,
    write_csv,
    write_nnunet,
)

BRAIN = {"background": 0, "brain": 1}
NAMES = ("a", "b", "c")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slices"


def problems(data: Path, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        prepare(data, **changes)
    return [problem.replace(f"{data}", "") for problem in caught.value.problems]


def normal(path: Path) -> FloatArray:
    """The slices of one channel of one file, as if it were the only one."""
    return normalise(to_grid(read(path), 32, 2.0))


def rows_of(folder: Path, *suffixes: str, labels: Sequence[int] = (1,)) -> list[dict[str, object]]:
    """Rows of a CSV with one image per suffix, in columns image, image_2 …"""
    rows: list[dict[str, object]] = []
    for number, name in enumerate(NAMES):
        row: dict[str, object] = {"mask": write(folder / f"{name}_mask.nii", labelled(labels)), "subject": name}
        for channel, suffix in enumerate(suffixes):
            column = "image" if channel == 0 else f"image_{channel + 1}"
            row[column] = write(folder / f"{name}_{suffix}.nii", grey(10 * number + channel))
        rows.append(row)
    return rows


# ── where they are


def test_two_channels_three_classes_and_an_ignored_label(home: Path, tmp_path: Path) -> None:
    labels = {"background": 0, "csf": 1, "grey": 2, "white": 3, "ignore": 4}
    masks = {name: labelled((1, 2, 3, 4)) for name in NAMES}
    data = write_nnunet(tmp_path, masks, labels, {"0": "T2", "1": "T1"})
    slices = prepare(data)
    assert (slices.channels, slices.images.shape, slices.masks.shape) == (2, (12, 2, 32, 32), (12, 32, 32))
    assert slices.index["files"]["images.f32"]["bytes"] == 12 * 2 * 32 * 32 * 4
    for subject in slices.index["subjects"]:
        rows = slice(subject["first"], subject["first"] + subject["slices"])
        for channel in range(2):
            expected = normal(data / "imagesTr" / f"{subject['name']}_{channel:04}.nii.gz")
            np.testing.assert_array_equal(slices.images[rows, channel], expected)
    batch = SliceDataset(slices, "train")[[1, 2]]
    assert tuple(batch["image"].shape) == (2, 2, 32, 32)
    assert np.unique(batch["mask"].numpy()).tolist() == [0, 1, 2, 3, IGNORED]
    one = prepare(data, channels="T1")
    np.testing.assert_array_equal(one.images[:, 0], slices.images[:, 1])
    swapped = prepare(data, channels="1,T2")
    np.testing.assert_array_equal(swapped.images, slices.images[:, ::-1])
    assert len({found.folder for found in (slices, one, swapped)}) == 3


def test_bids_channels_are_suffixes(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled() for name in NAMES}, ("T2w", "T1w"), table="")
    assert prepare(data).channels == 1
    slices = prepare(data, channels="T2w,T1w")
    assert slices.channels == 2
    np.testing.assert_array_equal(slices.images[:, :1], prepare(data).images)
    np.testing.assert_array_equal(slices.images[:, 1:], prepare(data, channels="T1w").images)
    assert prepare(data).content == prepare(data, channels="T2w").content
    found = check(data, channels="T1w,T2w")
    assert (found.problems, found.channels) == ([], ["T1w", "T2w"])


def test_columns_of_a_csv_are_channels(home: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "x", "y", "z")
    slices = prepare(write_csv(tmp_path / "data.csv", rows))
    assert slices.channels == 3
    chosen = prepare(tmp_path / "data.csv", channels="image_3,image")
    np.testing.assert_array_equal(chosen.images, slices.images[:, [2, 0]])
    alone = prepare(
        write_csv(tmp_path / "one.csv", [{k: row[k] for k in ("image", "mask", "subject")} for row in rows])
    )
    np.testing.assert_array_equal(alone.images, slices.images[:, :1])
    assert alone.content == prepare(tmp_path / "data.csv", channels="image").content


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("components", [2, 3])
def test_a_vector_image_has_a_channel_for_each_component(
    suffix: str, components: int, home: Path, tmp_path: Path
) -> None:
    parts = {name: [grey(10 * n + c, np.int16) for c in range(components)] for n, name in enumerate(NAMES)}
    for name, channels in parts.items():
        write(tmp_path / "images" / f"{name}{suffix}", np.stack(channels, -1), is_vector=True)
        write(tmp_path / "masks" / f"{name}{suffix}", labelled())
    rows = [
        {"image": write(tmp_path / f"{name}_0.mha", channels[0]), "mask": tmp_path / "masks" / f"{name}{suffix}"}
        | {f"image_{c + 1}": write(tmp_path / f"{name}_{c}.mha", channels[c]) for c in range(1, components)}
        | {"subject": name}
        for name, channels in parts.items()
    ]
    vectors, separate = prepare(tmp_path), prepare(write_csv(tmp_path / "data.csv", rows))
    assert vectors.channels == components
    np.testing.assert_array_equal(vectors.images, separate.images)
    assert check(tmp_path).problems == []


def test_a_volume_along_other_axes_is_turned_like_its_first_channel(home: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "x", "y")
    plain = prepare(write_csv(tmp_path / "data.csv", rows)).images
    for row in rows:
        stored = sitk.ReadImage(str(row["image_2"]))
        sitk.WriteImage(sitk.DICOMOrient(stored, "RAS"), str(row["image_2"]))
    np.testing.assert_array_equal(prepare(tmp_path / "data.csv").images, plain)


# ── CT


def ct(seed: int) -> Array:
    return np.random.default_rng(seed).normal(100 * seed, 400, (4, 24, 24)).astype(np.int16)


def test_ct_has_one_scale_for_all_subjects(home: Path, tmp_path: Path) -> None:
    images = {f"{name}_0001": ct(number) for number, name in enumerate(NAMES)}
    masks = {name: labelled() for name in NAMES}
    data = write_nnunet(tmp_path / "data", masks, BRAIN, {"0": "T2", "1": "CT"}, **images)
    inside = np.concatenate([images[f"{name}_0001"][masks[name] > 0] for name in NAMES])
    low, high = np.percentile(inside.astype(np.float32), (0.5, 99.5))
    slices = prepare(data)
    assert slices.windows == {"1": [low, high]}
    for subject in slices.index["subjects"]:
        rows = slice(subject["first"], subject["first"] + subject["slices"])
        name = subject["name"]
        scaled = (np.clip(images[f"{name}_0001"].astype(float), low, high) - low) / (high - low)
        expected = np.pad(scaled, ((0, 0), (4, 4), (4, 4)))
        np.testing.assert_allclose(slices.images[rows, 1], expected, atol=1e-5)
        np.testing.assert_array_equal(slices.images[rows, 0], normal(data / "imagesTr" / f"{name}_0000.nii.gz"))
    folds = [prepare(data, folds=3, fold=fold).folder for fold in range(3)]
    assert {*folds} == {slices.folder}, "both splits count, so that folds share slices"
    assert not any("below 0" in note for note in check(data).notes)

    file = tmp_path / "split.csv"
    file.write_text(split_csv(slices.cases))
    again = prepare(file)
    assert (again.folder, again.content) == (slices.folder, slices.content)
    (data / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2", "1": "T1"}, "labels": BRAIN}))
    other = prepare(data)
    assert other.content
    assert slices.content
    assert other.folder != slices.folder
    assert other.content.digest != slices.content.digest


def test_ct_that_is_constant_in_the_foreground_is_refused(home: Path, tmp_path: Path) -> None:
    images = {f"{name}_0000": np.where(labelled() > 0, 7, ct(1)) for name in NAMES}
    data = write_nnunet(tmp_path, {name: labelled() for name in NAMES}, BRAIN, {"0": "CT"}, **images)
    (problem,) = problems(data)
    assert problem.endswith("CT is 7 in the foreground of all subjects; check the masks")


def test_a_vector_beside_ct_is_refused(home: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "x", "y")
    for row in rows:
        row |= {"image": write(tmp_path / f"{row['subject']}.mha", np.stack([grey(1)] * 2, -1), is_vector=True)}
        row |= {"ct_channels": 2}
    data = write_csv(tmp_path / "data.csv", rows)
    found = problems(data)
    assert len(found) == 3
    assert found[0].endswith("/a.mha: 3 channels in 2 files, one of CT; write one file per channel")
    assert found[0] in check(data).problems
    data.write_text(data.read_text().replace("ct_channels", "other"))
    assert prepare(data).channels == 3
    assert check(data).channels == ["1", "2", "3"]


# ── mistakes


def test_a_channel_on_another_grid_is_said_with_both_grids(home: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "x", "y")
    write(Path(str(rows[0]["image_2"])), grey(1)[1:])
    write(Path(str(rows[1]["image_2"])), grey(1), (3, 2, 4))
    moved = sitk.ReadImage(str(rows[2]["image_2"]))
    moved.SetOrigin((5, 0, 0))
    sitk.WriteImage(moved, str(rows[2]["image_2"]))
    data = write_csv(tmp_path / "data.csv", rows)
    found = problems(data)
    assert found == [problem.replace(str(data), "") for problem in check(data).problems]
    for row, problem, words in zip(
        rows, found, ("size 24×24×3, ", "spacing 3×2×4 mm, ", "origin (5, 0, 0), "), strict=True
    ):
        assert problem.startswith(f"{row['image_2']}: its grid differs from the first channel's ({row['image']}): ")
        here, _, there = problem.partition("not size")
        assert words in here
        assert words not in there


def test_different_numbers_of_channels_are_said(home: Path, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        array = np.stack([grey(number), grey(number + 5) - 500], -1)[..., : 1 if name == "b" else 2]
        write(tmp_path / "images" / f"{name}.mha", array, is_vector=True)
        write(tmp_path / "masks" / f"{name}.mha", labelled())
    (problem,) = problems(tmp_path)
    assert problem == (
        ": images have different numbers of channels: 1 in /images/b.mha, 2 in /images/a.mha; all must have the same"
    )
    assert check(tmp_path).problems[0].replace(str(tmp_path), "") == problem
    rows = [{"image": tmp_path / f"images/{n}.mha", "mask": tmp_path / f"masks/{n}.mha", "subject": n} for n in NAMES]
    rows[0]["subject"] = "b"
    assert "different numbers of channels" in check(write_csv(tmp_path / "data.csv", rows)).problems[0]


def test_a_bids_image_that_lacks_a_channel_is_said(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled() for name in NAMES}, ("T2w", "T1w"), table="")
    (data / "sub-b/anat/sub-b_rec-mial_T1w.nii.gz").unlink()
    anat = "/sub-b/anat/sub-b_rec-mial"
    assert problems(data, channels="T2w,T1w") == [
        f"{anat}_T2w.nii.gz: no T1w image beside it; expected {anat}_T1w.nii.gz"
    ]
    (data / "sub-b/anat/sub-b_rec-mial_dseg.nii.gz").unlink()
    assert prepare(data, channels="T2w,T1w").index["subjects"][-1]["name"] == "sub-c"
    (problem,) = problems(data, channels="FLAIR")
    assert problem.startswith(": no FLAIR image in any folder anat, but 3 T2w, 2 T1w; ")
    assert problems(data, channels="T2w,dseg") == [": channels: 'dseg' is the suffix of masks, not of images"]


def test_e2mip_has_one_channel(greenseg: Command, phantom: Path) -> None:
    result = greenseg("data", "check", phantom, "--channels", "T2w,T1w")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {phantom}: channels: images of layout e2mip have one channel; ")


@pytest.mark.parametrize(
    ("changes", "channels", "said"),
    [
        ({"image_3": "image_4"}, "", ":1: column 'image_4', but no 'image_3'; number them from 2 up"),
        ({}, "image_4", ": channels: no column 'image_4' (did you mean 'image_3'?); columns of images: "),
        ({"b_y.nii": ""}, "", ":3: names no image_2"),
        ({"b_y.nii": "nowhere.nii"}, "", ":3: /nowhere.nii: no such file"),
        ({"b_y.nii": "b_x.nii"}, "", ":3: one image is two channels: "),
        ({"b_y.nii": "a_x.nii"}, "", ":3: duplicate; /a_x.nii was listed before (:2)"),
        ({"b_y.nii": "b_mask.nii"}, "", ":3: /b_mask.nii: is the image itself, not its mask"),
    ],
)  # fmt: skip
def test_mistakes_with_columns_are_said(
    changes: dict[str, str], channels: str, said: str, home: Path, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "data.csv", rows_of(tmp_path, "x", "y", "z"))
    text = data.read_text().replace(f"{tmp_path}/", "")
    for old, new in changes.items():
        text = text.replace(old, new)
    data.write_text(text)
    found = [problem.replace(str(tmp_path), "") for problem in problems(data, channels=channels)]
    assert any(problem.removeprefix("/data.csv").startswith(said) for problem in found), found


@pytest.mark.parametrize("suffix", [".nii.gz", ".png"])
def test_colour_is_no_set_of_channels(suffix: str, home: Path, tmp_path: Path) -> None:
    array = np.stack([grey(1, np.uint8)[0]] * 3, -1)
    write(tmp_path / f"a{suffix}", array, (2, 2), is_vector=True)
    write(tmp_path / "m.nii", labelled()[1])
    rows = [{"image": tmp_path / f"a{suffix}", "mask": tmp_path / "m.nii", "subject": n} for n in NAMES[:2]]
    rows[1]["image"] = write(tmp_path / "b.nii", grey(2)[0], (2, 2))
    (problem, *_) = problems(write_csv(tmp_path / "data.csv", rows))
    assert "3 values per pixel (a colour image); convert it to a grey image, or write one file per channel" in problem


# ── content


def test_all_channels_count_in_their_order(home: Path, tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", {name: labelled() for name in NAMES}, BRAIN, {"0": "T2", "1": "T1"})

    def content(channels: str = "") -> Content:
        return Content.of(cases_of(settings_for(data, channels=channels), data))

    both, first, swapped = content(), content("0"), content("1,0")
    assert len({found.digest for found in (both, first, swapped)}) == 3
    assert both == content("T2,T1")
    for path in (data / "imagesTr").glob("*_0001*"):
        sitk.WriteImage(sitk.ReadImage(str(path)) + 1, str(path))
    assert content("0") == first
    assert content().difference(both) == "images changed: a, b, c"


def test_a_written_split_has_the_channels(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path / "data", {name: labelled() for name in NAMES}, ("T2w", "T1w"))
    labels = "x=1,y=2+3"
    slices = prepare(data, channels="T1w,T2w", labels=labels)
    file = tmp_path / "split.csv"
    file.write_text(split_csv(slices.cases))
    again = prepare(file, labels=labels)
    assert (again.cases, again.content, again.folder) == (slices.cases, slices.content, slices.folder)
    assert [image.name[-10:] for image in slices.cases[0].images[0]] == ["T1w.nii.gz", "T2w.nii.gz"]


def test_the_cache_lists_entries_of_any_number_of_channels(greenseg: Command, home: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "x", "y", labels=(1, 2))
    prepare(write_csv(tmp_path / "data.csv", rows), labels="a=1,b=2")
    listed = greenseg("data", "cache")
    assert "1 cache, 111 kB" in listed.stdout
    assert " 1;2 " in listed.stdout
    assert len(list(cache.cached())) == 1


# ── what `data check` shows


def test_check_shows_channels(greenseg: Command, tmp_path: Path) -> None:
    images = {f"{name}_0001": ct(number) for number, name in enumerate(NAMES)}
    write_nnunet(tmp_path / "data", {n: labelled() for n in NAMES}, BRAIN, {"0": "T2", "1": "DWI"}, **images)
    shown = greenseg("data", "check", "data")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "layout nnunet, channels T2, DWI" in " ".join(shown.stdout.split())
    assert "note: a: many values below 0 in channel 2; " in shown.stdout
    report = json.loads(greenseg("data", "check", "data", "--json", "--channels", "DWI,T2").stdout)
    assert report["channels"] == ["DWI", "T2"]
    (case, *_) = report["cases"]
    assert case["intensity"] == [images["a_0001"].min(), images["a_0001"].max()]
    assert case["floor"] < 0 == case["more_channels"][0]["floor"]
    assert case["more_channels"][0]["intensity"][0] >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,mask,ignore\na.nii,m.nii,2,9\n", ":2: 4 cells, but 3 columns"),
        ("image,image2,mask\na.nii,b.nii,m.nii\n", ":1: unknown column 'image2' (did you mean 'image_2'?)"),
        ("image,mask,class\na.nii,m.nii,x\n", ":1: unknown column 'class' (did you mean 'classes'?)"),
        ("image,mask,ct_channels\na.nii,m.nii,3\n", ":2: ct_channels 3: there is no column 'image_3'"),
    ],
)
def test_cells_and_columns_that_mean_nothing_are_said(text: str, said: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(text)
    assert any(problem.removeprefix("/data.csv").startswith(said) for problem in problems_in(tmp_path)), said


def problems_in(folder: Path) -> list[str]:
    return [problem.replace(str(folder), "") for problem in problems(folder / "data.csv")]
