"""Several classes: who names them, what a pixel of a mask becomes, what distinguishes their data."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.classes import BINARY, IGNORED, Classes
from greenseg.data import cache, native
from greenseg.data.check import check
from greenseg.data.content import Content, Contents, recomputed
from greenseg.data.grid import mask_to_grid
from greenseg.data.loader import SliceDataset
from greenseg.data.splits import cases_of, scan, split_csv
from greenseg.errors import UserError
from tests.conftest import SMALL, Command
from tests.data.datasets import (
    TISSUES,
    labelled,
    prepare,
    settings_for,
    write,
    write_bids,
    write_csv,
    write_nnunet,
)
from tests.versions.blocks import write_blocks

SEVEN = (1, 2, 3, 4, 5, 6, 7)
THREE = {"background": 0, "csf": 1, "grey": 2, "white": 3}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slices"


def problems(data: Path, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        prepare(data, **changes)
    return [problem.replace(f"{data}", "") for problem in caught.value.problems]


# ── one class is what it was


def test_one_class_and_one_channel_are_the_same_bytes_under_the_same_names(home: Path, tmp_path: Path) -> None:
    """The numbers are those of the commit before there were several."""
    changed: tuple[dict[str, Any], ...] = ({}, {"labels": "1"}, {"spacing": 3.0})
    blocks, nnunet = write_blocks(tmp_path / "blocks", 4), tmp_path / "nnunet"
    for number in range(4):
        for kind, folder, end in (("images", "imagesTr", "_0000"), ("masks", "labelsTr", "")):
            (file,) = (blocks / kind).glob(f"*_{number:04}.nrrd")
            (nnunet / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, nnunet / folder / f"c{number}{end}.nrrd")
    (nnunet / "dataset.json").write_text('{"channel_names": {"0": "T2"}, "labels": {"background": 0, "brain": 1}}')
    for data, content, files, names in (
        (blocks, "4871fcefa7243dbf", "03167307fe98623e", ("cdba217a371edde3", "4cbb9c1d1df41d9d", "42212523faaeeadd")),
        (nnunet, "22fef4198283a0f1", "99e9362a713e526c", ("d78730839c62229e", "059894fd9fcef384", "806d0f87277d3b9c")),
    ):
        for name, changes in zip(names, changed, strict=True):
            slices = prepare(data, **changes)
            assert slices.content
            assert (slices.content.digest, slices.content.files, slices.folder.name) == (content, files, name)
            assert slices.index["files"]["masks.u8"]["crc32"] == (4118447794 if "spacing" in changes else 989946863)
            if not changes:
                assert slices.index["files"]["images.f32"]["crc32"] == 1253147594
                assert (slices.classes, slices.channels, slices.has_ignored) == (BINARY, 1, False)


@pytest.mark.parametrize("lacks", ["native.z", "windows"])
def test_slices_of_earlier_versions_are_made_again_once(lacks: str, home: Path, tmp_path: Path) -> None:
    """They lack the masks in the pixels of their files, or the windows of CT; their bytes and their name stay."""
    first = prepare(write_blocks(tmp_path / "blocks"))
    index = json.loads((first.folder / "index.json").read_text())
    files = dict(index["files"])
    for place in (index, index["files"]):
        place.pop(lacks, None)
    del index["crc32"]
    index["crc32"] = cache._crc_of(index)
    (first.folder / "index.json").write_text(json.dumps(index))
    again = prepare(tmp_path / "blocks")
    assert (again.built, again.folder) == (True, first.folder)
    assert again.index["files"] == files, "the same checksums"
    assert not prepare(tmp_path / "blocks").built


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([1, 5, 40]))
def test_native_masks_come_back_as_they_were(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        shape = rng.integers(1, 40, 3)
        values = rng.choice([0, 1, 7, IGNORED], [-(-int(n) // block) for n in shape]).astype(np.uint8)
        for axis, n in enumerate(shape):
            values = np.repeat(values, block, axis).take(range(n), axis)
        masks.append(values)
    images = [sitk.GetImageFromArray(values) for values in masks]
    images[-1].SetSpacing((0.7, 0.3, 3))
    entries, content = native.packed(images, 11)
    content = np.concatenate([np.zeros(11, np.uint8), content])
    for entry, values in zip(entries, masks, strict=True):
        np.testing.assert_array_equal(native.read(content, entry), values)
    assert entries[-1]["pixel"] == [0.3, 0.7], "between rows, between columns"
    assert sum(entry["bytes"] for entry in entries) == len(content) - 11


# ── who names the classes


def test_seven_tissues_of_a_bids_table(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path / "feta", {name: labelled(SEVEN) for name in "abc"})
    slices = prepare(data)
    assert slices.classes == Classes(TISSUES, tuple((label,) for label in SEVEN))
    assert slices.masks.shape == (12, 32, 32)
    assert [subject["pixels"] for subject in slices.index["subjects"]] == [[2 * 12 * 3] * 7] * 3
    batch = SliceDataset(slices, "train")[[1]]
    assert np.unique(batch["mask"].numpy()).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    merged = prepare(data, labels="fluid=1+4,brain=2+3+5+6+7")
    assert merged.classes.names == ("fluid", "brain")
    assert [subject["pixels"] for subject in merged.index["subjects"]] == [[144, 360]] * 3
    assert merged.folder != slices.folder


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("dseg.tsv", ("a", "b")),
        ("desc-manual_dseg.tsv", BINARY.names),
        ("rec-mial_dseg.tsv", ("a", "b")),
        ("sub-2/anat/other-dseg.tsv", BINARY.names),
    ],
)
def test_a_table_applies_where_bids_says(place: str, named: tuple[str, ...], home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled((1, 2)) for name in "12"}, table="")
    (data / place).write_text("\ufeffname\tindex\nbackground\t0\na\t1\nb\t2\n", encoding="utf-8")
    assert prepare(data).classes.names == named
    for number in "12":
        (data / f"sub-{number}/anat/sub-{number}_rec-mial_dseg.tsv").write_text("index\tname\n1\tx\n2\ty\n")
    assert prepare(data).classes.names == ("x", "y"), "the nearest"


def test_the_nearest_table_and_the_root_of_derivatives_count(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path / "data", {name: labelled((1, 2)) for name in "12"})
    for name in "12":
        folder = data / "derivatives" / "manual" / f"sub-{name}" / "anat"
        folder.mkdir(parents=True)
        mask = f"sub-{name}_rec-mial_dseg.nii.gz"
        (data / f"sub-{name}" / "anat" / mask).rename(folder / mask)
    (data / "derivatives" / "manual" / "dseg.tsv").write_text("index\tname\n1\ta\n2\tb\n")
    assert prepare(data).classes.names == ("a", "b")
    (data / "derivatives" / "manual" / "dseg.tsv").unlink()
    assert prepare(data, labels="1,2").classes == Classes(("foreground",), ((1, 2),))
    assert scan(data)[0].classes is None, "the table of the raw data is not that of its derivatives"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (THREE, Classes(("csf", "grey", "white"), ((1,), (2,), (3,)))),
        ({"0": "background", "1": "csf", "3": "white"}, Classes(("csf", "white"), ((1,), (3,)))),
        ({"background": 0, "x": 3, "y": [1, 2]}, Classes(("x", "y"), ((3,), (1, 2)))),
        ({"background": 0, "a: b, c": 1, "d": 2}, Classes(("a_b_c", "d"), ((1,), (2,)))),
        ({"background": 0, "brain": 1}, BINARY),
        ({"background": 0, "brain": 1, "ignore": 2}, BINARY),
        ({}, BINARY),
    ],
)  # fmt: skip
def test_classes_of_nnunet(labels: Any, expected: Classes, home: Path, tmp_path: Path) -> None:
    slices = prepare(write_nnunet(tmp_path, {name: labelled((1, 2, 3)) for name in "abc"}, labels))
    assert slices.classes == expected
    assert slices.masks.max() == len(expected) or slices.has_ignored


def test_pixels_with_the_ignored_label_are_kept_apart(home: Path, tmp_path: Path) -> None:
    masks = {name: labelled((1, 2, 3, 9)) for name in "abc"}
    slices = prepare(write_nnunet(tmp_path, masks, THREE | {"ignore": 9}))
    assert slices.has_ignored
    assert np.unique(slices.masks).tolist() == [0, 1, 2, 3, IGNORED]
    assert [subject["cut_off"] for subject in slices.index["subjects"]] == [0.0] * 3
    assert [subject["empty"] for subject in slices.index["subjects"]] == [[0, 3]] * 3
    only = {"background": 0, "csf": 1, "grey": 2, "ignore": 9}
    nothing = prepare(write_nnunet(tmp_path / "b", {"a": labelled((1, 2)), "b": labelled((1, 2, 9))}, only))
    assert nothing.index["ignored"] == 72
    (refused,) = problems(tmp_path, labels="1,9")
    assert "label 9 is 'ignore'" in refused
    shutil.copy(tmp_path / "imagesTr/a_0000.nii.gz", tmp_path / "imagesTr/b_0000.nii.gz")
    assert len(check(tmp_path, labels="1,9").problems) == 2, "a duplicate, too"


def test_labels_above_255_form_classes(home: Path, tmp_path: Path) -> None:
    masks = {name: labelled((300, 1000), np.uint16) for name in "abc"}
    data = write_nnunet(tmp_path, masks, {"background": 0, "a": 300, "b": 1000})
    assert np.unique(prepare(data).masks).tolist() == [0, 1, 2]
    assert np.unique(prepare(data, labels="300").masks).tolist() == [0, 1]


# ── mistakes


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"whole": [1, 2, 3], "core": [2, 3], "x": 9},
         ["label 2 is in two classes, whole and core; classes must not overlap", "--labels whole=1+2+3"]),
        ({"a": 1, "b": 1}, ["label 1 is in two classes, a and b"]),
        ({"1": "csf", "2": "csf"}, ["two classes have the name 'csf'"]),
        ({"a": 1, "b": "two"}, ["class 'b' has \"two\", not labels above 0"]),
        ({"a": 1, "b": 2, "ignore": 2}, ["label 2 is in class 'b' and is 'ignore'"]),
        ({f"c{n}": n for n in range(1, 256)}, ["255 classes; at most 254 are possible"]),
    ],
)  # fmt: skip
def test_classes_of_nnunet_that_are_none_are_said(labels: Any, said: list[str], home: Path, tmp_path: Path) -> None:
    data = write_nnunet(tmp_path, {name: labelled() for name in "abc"}, {"background": 0} | labels)
    (problem,) = problems(data)
    assert problem.startswith("/dataset.json: labels: ")
    for words in said:
        assert words in problem
    assert check(data).problems[0].endswith(problem)
    assert prepare(data, labels="one=1,three=3").classes.names == ("one", "three"), "the setting decides"
    assert {case.split for case in check(data, labels="one=1,three=3").cases} == {"train", "validation"}


def test_a_label_twice_in_a_dataset_json_is_said(home: Path, tmp_path: Path) -> None:
    data = write_nnunet(tmp_path, {name: labelled() for name in "abc"}, {})
    (data / "dataset.json").write_text('{"labels": {"background": 0, "csf": 1, "csf": 2}}')
    (problem,) = problems(data)
    assert "'csf' occurs twice" in problem


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("index,name\n1,a\n2,b\n", "line 1: no column 'index', or columns are not separated by tabs"),
        ("index\tname\n1\ta\nx\tb\n", "line 3: needs a label in column 'index' and a name in column 'name'"),
        ("index\tname\n1\ta\n2\n", "line 3: needs a label"),
        ("index\tname\n1\ta\n2\ta\n", "two classes have the name 'a'"),
        ("index\tname\n1\ta\n1\tb\n", "label 1 is in two classes, a and b"),
    ],
)
def test_mistakes_in_a_bids_table_are_said(table: str, said: str, home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled((1, 2)) for name in "abc"}, table=table)
    (problem,) = problems(data)
    assert problem.startswith(f"/dseg.tsv: {said}")
    assert "--labels csf=1" in problem
    assert len(prepare(data, labels="a=1,b=2").classes) == 2


@pytest.mark.parametrize("other", ["mask", "dseg"])
def test_a_mask_without_a_table_beside_those_with_one_is_said(other: str, home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled((1, 2)) for name in "abc"}, table="")
    for name in "ab":
        (data / f"sub-{name}" / "dseg.tsv").write_text("index\tname\n1\ta\n2\tb\n")
    mask = data / "sub-c/anat/sub-c_rec-mial_dseg.nii.gz"
    mask = mask.rename(mask.with_name(f"sub-c_rec-mial_{other}.nii.gz"))
    (problem,) = problems(data)
    assert problem.startswith(
        f"{str(mask).removeprefix(str(data))}: no dseg.tsv names its classes, but /sub-a/dseg.tsv "
    )
    assert len(prepare(data, labels="a=1,b=2").classes) == 2


def test_tables_that_contradict_each_other_are_said(home: Path, tmp_path: Path) -> None:
    data = write_bids(tmp_path, {name: labelled((1, 2)) for name in "abc"}, table="index\tname\n1\ta\n2\tb\n")
    (data / "sub-b" / "dseg.tsv").write_text("index\tname\n1\tb\n2\ta\n")
    (problem,) = problems(data)
    assert problem.startswith("/sub-b/dseg.tsv: names other classes than /dseg.tsv; ")


def test_classes_that_no_mask_has_are_said_all_at_once(greenseg: Command, home: Path, tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", {name: labelled((2, 5)) for name in "abc"}, THREE)
    expected = [
        f"no mask has class '{name}' (label {label}); masks have the labels 2, 5: name the classes that they have"
        for name, label in (("csf", 1), ("white", 3))
    ]
    for found in (problems(data), [p.removeprefix(str(data)) for p in check(data).problems]):
        assert [problem.removeprefix(": ").partition(" with")[0] for problem in found] == expected
    assert list(home.glob("*/")) == []
    trained = greenseg("train", "--data", data, *SMALL)
    assert (trained.returncode, len(trained.stderr.splitlines())) == (2, 2)


def test_classes_that_a_split_lacks_are_noted(home: Path, tmp_path: Path) -> None:
    masks = {"a": labelled((1, 2, 3)), "b": labelled((2, 4))}
    paths = {
        name: (write(tmp_path / f"{name}.nii", labelled()), write(tmp_path / f"{name}_m.nii", mask))
        for name, mask in masks.items()
    }
    rows = [
        {"image": image, "mask": mask, "subject": name, "split": split, "classes": "x=1,y=2,z=3"}
        for (name, (image, mask)), split in zip(paths.items(), ("train", "validation"), strict=True)
    ]
    slices = prepare(write_csv(tmp_path / "data.csv", rows))
    assert cache.absent(slices) == ["No validation slice has classes 'x', 'z': their Dice cannot be measured."]
    assert cache.without_class(slices) == "In no class, so background: label 4."
    notes = check(tmp_path / "data.csv").notes
    assert {"class 'x': in no validation mask", "class 'z': in no validation mask"} <= set(notes)
    assert "in no class, so background: label 4" in notes
    folds = [prepare(tmp_path / "data.csv", folds=2, fold=fold) for fold in range(2)]
    assert sorted(cache.absent(fold)[0].split()[1] for fold in folds) == ["training", "validation"]
    assert len({slices.folder, *(fold.folder for fold in folds)}) == 1


# ── the area of a pixel


def shares(mask: np.ndarray, numbers: tuple[int, ...], pixel: int, size: int, spacing: int) -> np.ndarray:
    """Area of each number in each pixel of a centred grid, float64 [number, y, x], in hundredths of a mm squared."""
    fine = np.kron(mask, np.ones((pixel, pixel), int))  # pixels of 0.1 mm
    side, have = size * spacing, fine.shape[0]
    before = (side - have) // 2
    fine = np.pad(fine, side)[side - before :, side - before :][:side, :side]
    blocks = fine.reshape(size, spacing, size, spacing)
    return np.stack([(blocks == number).sum((1, 3)) for number in numbers]).astype(float)


@given(
    seed=st.integers(0, 2**32 - 1),
    pixel=st.integers(2, 30),
    spacing=st.integers(2, 30),
    count=st.integers(1, 6),
    ignored=st.booleans(),
)
@settings(max_examples=150)
def test_a_pixel_has_the_class_with_the_largest_share(
    seed: int, pixel: int, spacing: int, count: int, ignored: bool
) -> None:
    numbers = (*range(1, count + 1), *([IGNORED] if ignored else []))
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array([0, *numbers]), (14, 14)).astype(np.uint8)
    if max(pixel, spacing) % min(pixel, spacing) == 0 or (16 * spacing - 14 * pixel) % 2:
        return  # the grid moves, or does not fall on whole tenths of a mm
    image = sitk.GetImageFromArray(mask[None])
    image.SetSpacing((pixel / 10, pixel / 10, 3.0))
    found = mask_to_grid(image, 16, spacing / 10, numbers)[0]
    area = shares(mask, (*numbers, 0), pixel, 16, spacing)
    largest = area.max(0)
    clear = (area >= largest - 0.002 * spacing**2).sum(0) == 1
    expected = np.array([*numbers, 0])[area.argmax(0)]
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert (
        np.take_along_axis(area, np.searchsorted([0, *numbers], found)[None] - 1, 0)[0] >= largest - 0.002 * spacing**2
    ).all()


def test_equal_shares_go_to_the_first_class_and_last_to_the_background() -> None:
    mask = np.array([[0, 1, 2, 1, 0, 255], [2, 0, 1, 0, 0, 0]], np.uint8)
    image = sitk.GetImageFromArray(np.kron(mask, np.ones((1, 1), np.uint8))[None])
    image.SetSpacing((1.0, 1.0, 1.0))
    assert mask_to_grid(image, 6, 1.0, (1, 2, 255))[0][2:4].tolist() == mask.tolist()
    halves = np.array([[0, 1, 1, 2, 2, 255, 0, 0], [0, 1, 1, 2, 2, 255, 255, 255]], np.uint8).repeat(4, 0)
    image = sitk.GetImageFromArray(halves[None])
    assert mask_to_grid(image, 4, 2.0, (1, 2, 255))[0].tolist()[0] == [1, 1, 2, 0]


# ── identity of the content


def test_names_do_not_matter_and_labels_do(home: Path, tmp_path: Path) -> None:
    masks = {name: labelled((1, 2, 3, 4)) for name in "abc"}
    content: dict[str, Content] = {}
    for name, labels in {
        "first": THREE, "renamed": {"x": 1, "y": 2, "z": 3}, "order": {"csf": 2, "grey": 1, "white": 3},
        "fewer": {"csf": 1, "grey": 2}, "one": {"csf": 1}, "none": {}, "void": {"csf": 1, "ignore": 4},
    }.items():  # fmt: skip
        found = Contents().of(settings_for(write_nnunet(tmp_path / name, masks, labels)))
        assert found
        content[name] = found
    assert content["first"] == content["renamed"]
    assert content["one"] == content["none"]
    distinct = [content[name].digest for name in ("first", "order", "fewer", "one", "void")]
    assert len(set(distinct)) == len(distinct)
    folders = {name: prepare(tmp_path / name).folder for name in content}
    assert folders["first"] == folders["renamed"]
    assert len(set(folders.values())) == 5
    given = [prepare(tmp_path / "first", labels=labels) for labels in ("a=1,b=2", "c=1,d=2", "a=2,b=1")]
    assert [found.content for found in given] == [content["none"]] * 3, "the setting is part of the identity"
    assert given[0].folder == given[1].folder != given[2].folder
    assert given[1].classes.names == ("c", "d")


def test_one_examination_knows_that_labels_matter(home: Path, tmp_path: Path) -> None:
    data, contents = write_nnunet(tmp_path, {name: labelled() for name in "abc"}, THREE), Contents()
    named, given = (contents.of(settings_for(data, labels=labels)) for labels in ("", "1"))
    assert named
    assert given
    assert named.digest != given.digest


def test_a_written_split_keeps_classes_and_ignored_labels(home: Path, tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", {n: labelled((1, 2, 3, 4)) for n in "abc"}, THREE | {"ignore": 4})
    slices = prepare(data)
    file = tmp_path / "split.csv"
    file.write_text(split_csv(slices.cases))
    again = prepare(file)
    assert (again.cases, again.content, again.folder) == (slices.cases, slices.content, slices.folder)
    assert again.classes == slices.classes
    then = Content.of(cases_of(settings_for(data), data)).before_it_was_named()
    assert recomputed(file, then.slices_key(settings_for(data)), settings_for(data)) == then


# ── what `data check` shows


def test_check_shows_classes_and_their_shares(greenseg: Command, tmp_path: Path) -> None:
    masks = {"a": labelled((1, 2, 3, 7)), "b": labelled((1, 2, 3)), "c": labelled((1, 1, 2, 3))}
    write_nnunet(tmp_path / "data", masks, THREE)
    shown = greenseg("data", "check", "data", "--montage", "m.png")
    assert (shown.returncode, shown.stderr) == (0, "")
    table = [line.split() for line in shown.stdout.splitlines()]
    assert ["csf", "1", "40.0%", "3"] in table
    assert ["grey", "2", "30.0%", "3"] in table
    assert "note: in no class, so background: label 7" in shown.stdout
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.png")))
    for colour in ((255, 176, 0), (100, 143, 255), (220, 38, 127)):
        assert (pixels == colour).all(-1).sum() > 50

    report = json.loads(greenseg("data", "check", "data", "--labels", "rest=2+3+7,csf=1", "--json").stdout)
    assert [(c["name"], c["labels"], c["subjects"]) for c in report["classes"]] == [
        ("rest", [2, 3, 7], 3), ("csf", [1], 3)
    ]  # fmt: skip
    assert report["classes"][1]["share"] == pytest.approx(4 / 11)
    assert report["other_labels"] == []


def test_training_says_which_classes_are_missing(greenseg: Command, tmp_path: Path) -> None:
    paths = {n: (write(tmp_path / f"{n}.nii", labelled()), write(tmp_path / f"{n}_m.nii", labelled(labels)))
             for n, labels in {"a": (1, 2, 9), "b": (1,)}.items()}  # fmt: skip
    rows = [{"image": i, "mask": m, "split": split}
            for (i, m), split in zip(paths.values(), ("train", "validation"), strict=True)]  # fmt: skip
    write_csv(tmp_path / "data.csv", rows)
    said = greenseg("train", "--data", "data.csv", "--labels", "x=1,y=2", *SMALL, "--epochs", "1").stdout
    assert "No validation slice has class 'y': its Dice cannot be measured." in said
    assert "In no class, so background: label 9." in said
