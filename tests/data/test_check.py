"""`greenseg data check`: every class of problem at once, and nothing but the table where there is none."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.check import check
from greenseg.data.montage import Picture, write_montage
from greenseg.data.splits import scan
from tests.conftest import Command


def image(
    array: np.ndarray, spacing: tuple[float, ...] = (2, 2, 4), origin: tuple[float, ...] = (0, 0, 0)
) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    return made


def spoilt(root: Path) -> dict[str, str]:
    """A data set with every problem; returns file → what is to be said about it."""
    rng = np.random.default_rng(0)
    brain = np.zeros((6, 32, 32), np.uint8)
    brain[2:4, 10:20, 8:20] = 1

    def grey() -> np.ndarray:
        return rng.uniform(1, 100, brain.shape).astype(np.float32)

    def put(name: str, picture: sitk.Image | None, mask: sitk.Image | None, suffix: str = ".nii.gz",
            split: str = "training_data") -> Path:  # fmt: skip
        for made, path in ((picture, f"images/{name}"), (mask, f"masks/{name}_mask")):
            target = root / split / f"{path}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if made is not None:
                sitk.WriteImage(made, str(target))
        return root / split / f"images/{name}{suffix}"

    good = image(brain)
    put("ok", image(grey()), good)
    put("fine", image(grey()), good, split="validation_data")
    put("nomask", image(grey()), None)
    put("noimage", None, good)
    put("size", image(grey()), image(brain[1:]))
    put("spacing", image(grey()), image(brain, (2, 2, 5)))
    put("origin", image(grey()), image(brain, origin=(3, 0, 0)))
    turned = image(brain)
    turned.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    put("direction", image(grey()), turned)
    put("fractions", image(grey()), image(brain * np.float32(0.5)))
    put("negative", image(grey()), image(-brain.astype(np.int16)))
    put("multi", image(grey() - 50), image(brain * np.arange(6, dtype=np.uint8)[:, None, None]))
    missing = grey()
    missing[0, 0, 0] = np.nan
    put("nan", image(missing), good)
    put("nan2", image(missing), good, ".mha")
    zero = put("zero", image(grey()), good)
    content = bytearray(gzip.decompress(zero.read_bytes()))
    struct.pack_into("<f", content, 80, 0.0)
    zero.write_bytes(gzip.compress(content))
    put("unreadable", image(grey()), good).write_bytes(b"no image")
    same = grey()
    put("once", image(same), good)
    put("twice", image(same), good, ".mha")  # in another format, even
    put("two_slice1", image(grey()), good)
    put("two_slice2", image(grey()), good, split="validation_data")
    train = f"{root}/training_data"
    return {
        "images/nomask.nii.gz": "image without mask; expected",
        "masks/noimage_mask.nii.gz": "mask without image; expected",
        "masks/size_mask.nii.gz": "size 32×32×5 differs from its image's 32×32×6",
        "masks/spacing_mask.nii.gz": "spacing 2×2×5 mm differs from its image's 2×2×4 mm",
        "masks/origin_mask.nii.gz": "lies up to 3 mm off its image (origin or direction differ)",
        "masks/direction_mask.nii.gz": "off its image (origin or direction differ)",
        "masks/fractions_mask.nii.gz": "has values that are not labels (0.5)",
        "masks/negative_mask.nii.gz": "has values that are not labels (-1)",
        "images/nan.nii.gz": "has values that are not finite",
        "images/nan2.mha": "has values that are not finite",
        "images/zero.nii.gz": "its header gives a spacing of 0 mm",
        "images/unreadable.nii.gz": "is neither gzip nor a known image",
        "images/twice.mha": f"duplicate; has the same pixels, in the same place, as {train}/images/once.nii.gz",
        "images/two_slice2.nii.gz": "subject 'two' is in two splits, validation here and train in",
    }


def test_everything_that_is_wrong_is_said_at_once(greenseg: Command, tmp_path: Path) -> None:
    expected = spoilt(tmp_path / "data")
    result = greenseg("data", "check", "data")
    assert result.returncode == 2
    errors = [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(expected) == len(result.stderr.splitlines())
    for path, message in expected.items():
        (told,) = [error for error in errors if error.partition(": ")[0].endswith(path)]
        assert message.replace(str(tmp_path), "").partition(" as ")[0] in told
    assert "note: masks have the labels 1, 2, 3; all above 0 count as foreground" in result.stdout
    assert "note: multi: many values below 0; -48.53 and lower become background" in result.stdout
    assert "17 cases" in result.stdout

    report = json.loads(greenseg("data", "check", "data", "--json").stdout)
    assert len(report["problems"]) == len(expected)
    by_name = {case["subject"]: case for case in report["cases"]}
    assert by_name["multi"]["labels"] == [2, 3]
    assert (by_name["ok"]["slices"], by_name["ok"]["empty_slices"]) == (6, 4)
    assert by_name["ok"]["foreground"] == pytest.approx(240 / 6144)
    assert by_name["size"]["files"] == 0

    trained = greenseg("train", "--data", "data")
    assert trained.returncode == 2
    assert "Traceback" not in trained.stderr


@pytest.mark.parametrize("columns", ["80", "100"])
def test_a_data_set_that_is_all_right(columns: str, greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    result = greenseg("data", "check", phantom, "--montage", "cases.png", COLUMNS=columns)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert all(len(line) <= int(columns) for line in lines[:-2])
    assert lines[0].strip() == "5 cases (4 train, 1 validation), 95 slices, layout e2mip"
    assert lines[-2:] == ["No problems.", "Wrote cases.png"]
    assert "…" not in result.stdout
    assert [line.split()[0] for line in lines[2:7]] == [case.subject for case in scan(phantom)]
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "cases.png")))
    assert pixels.shape == (256, 5 * 256, 3)
    contour = (pixels == (255, 176, 0)).all(-1).reshape(256, 5, 256)
    assert (contour.sum((0, 2)) > 20).all(), "a contour on every tile"


def test_labels_decide_what_is_brain(tmp_path: Path) -> None:
    spoilt(tmp_path)
    (both,) = [case for case in check(tmp_path).cases if case.subject == "multi"]
    (one,) = [case for case in check(tmp_path, labels="3").cases if case.subject == "multi"]
    assert one.empty_slices == 5
    assert both.empty_slices == 4
    assert not any("labels" in note for note in check(tmp_path, labels="3").notes)
    assert "ok: no foreground in any slice" in check(tmp_path, labels="3").notes


def test_labels_that_no_training_mask_holds_are_a_problem(greenseg: Command, phantom: Path) -> None:
    result = greenseg("data", "check", phantom, "--labels", "9,7")
    assert result.returncode == 2
    errors = result.stderr.splitlines()
    assert len(errors) == 2
    for error, split in zip(errors, ("training", "validation"), strict=True):
        assert error.startswith(f"error: {phantom}: no foreground in any {split} slice with labels 7, 9 (")
        assert error.endswith("); masks have the label 1")
    assert "no foreground in any slice" not in result.stdout
    assert "No problems." not in result.stdout


def small(root: Path, masks: dict[str, np.ndarray]) -> Path:
    """Images of noise with these masks, by split and name."""
    rng = np.random.default_rng(0)
    for name, mask in masks.items():
        split, _, stem = name.rpartition("/")
        for path, array in ((f"images/{stem}", rng.uniform(1, 9, mask.shape)), (f"masks/{stem}_mask", mask)):
            target = root / split / f"{path}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image(array.astype(np.float32) if "images" in path else array), str(target))
    return root


def test_a_validation_set_without_brain_is_a_problem(greenseg: Command, tmp_path: Path) -> None:
    brain = np.zeros((3, 8, 8), np.uint8)
    brain[1, 2:6, 2:6] = 1
    data = small(tmp_path / "data", {"training_data/a": brain, "validation_data/b": brain * 0})
    assert check(data).problems == [f"{data}: no foreground in any validation slice (b); masks have only the label 0"]
    (tmp_path / "sweep.yaml").write_text(f"base: {{data: {data}, epochs: 1}}\ngrid: {{seed: [0, 1]}}\n")
    for command in (["train", "--data", data], ["sweep", "sweep.yaml"]):
        result = greenseg(*command)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {data}: no foreground in any validation slice (b); ")
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_labels_that_a_split_lacks_are_noted(tmp_path: Path) -> None:
    brain = np.zeros((3, 8, 8), np.uint8)
    brain[1, 2:6, 2:6], brain[2, 2:6, 2:6] = 1, 255
    data = small(tmp_path, {"training_data/a": brain, "validation_data/b": brain * (brain == 1)})
    notes = check(data).notes
    assert "label 255: in no validation mask" in notes
    assert any("--labels 1 leaves it out" in note for note in notes)
    assert check(data, labels="1").notes == []
    assert "label 7: in no training mask" in check(data, labels="1,7").notes


def test_headers_of_the_same_bytes_are_no_duplicates(tmp_path: Path) -> None:
    """The values of a MetaImage may lie beside its header."""
    for split in ("training_data", "validation_data"):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
        array = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8) + len(split)
        name = split[0]
        sitk.WriteImage(image(array), str(tmp_path / split / "images" / f"{name}.mhd"))
        sitk.WriteImage(image(np.ones((3, 8, 8), np.uint8)), str(tmp_path / split / "masks" / f"{name}_mask.nii"))
    for split in ("training_data", "validation_data"):
        folder = tmp_path / split / "images"
        (folder / f"{split[0]}.raw").rename(folder / "values.raw")
        header = folder / f"{split[0]}.mhd"
        header.write_text(header.read_text().replace(f"{split[0]}.raw", "values.raw"))
    assert check(tmp_path).problems == []


def test_volumes_of_one_spacing_that_are_cut_in_several_ways_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number, spacing in enumerate([(2, 2, 2), (2, 2, 2), (2, 2, 4)]):
        for kind, array in (("images", rng.uniform(1, 9, (6, 6, 6))), ("masks", np.ones((6, 6, 6), np.uint8))):
            made = image(array, spacing)
            if number == 1:
                made = sitk.PermuteAxes(made, (1, 2, 0))
            sitk.WriteImage(made, str(tmp_path / kind / f"c{number}.nii.gz"))
    found = check(tmp_path)
    assert found.problems == []
    (note,) = [note for note in found.notes if "cut across" in note]
    assert note.endswith("head–foot in 1 (c0), left–right in 1 (c1)")


def test_a_montage_shows_cases_without_brain_and_of_any_shape(tmp_path: Path) -> None:
    flat, brain = np.zeros((40, 20)), np.zeros((40, 20), bool)
    noise = np.random.default_rng(0).uniform(-9, 9, (7, 99))
    write_montage([Picture("a", flat, brain), Picture("b", noise, np.ones(noise.shape, bool))], tmp_path / "m.png")
    assert sitk.ReadImage(str(tmp_path / "m.png")).GetSize() == (512, 256)


@pytest.mark.parametrize("name", ["m", "m.nii", "nowhere/m.png"])
def test_a_montage_that_cannot_be_written_is_said_before_anything_is_read(
    name: str, greenseg: Command, phantom: Path
) -> None:
    result = greenseg("data", "check", phantom, "--montage", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: --montage {name}: ")
    assert ".png file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_real_data_is_all_right(e2mip: Path) -> None:
    found = check(e2mip)
    assert found.problems == []
    assert [case.split for case in found.cases].count("test") == 2
    assert sum(case.slices for case in found.cases) == 355
