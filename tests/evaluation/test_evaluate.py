"""`greenseg evaluate`: masks in files, and the numbers that are shown and written."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.classes import Classes
from greenseg.data.montage import BOTH, PREDICTION, REFERENCE
from greenseg.errors import UserError
from greenseg.evaluation import evaluate as evaluation
from greenseg.evaluation.evaluate import Evaluation, VolumeResult
from greenseg.evaluation.export import as_data
from greenseg.evaluation.pairs import pair_up
from greenseg.evaluation.pictures import worst_pictures
from greenseg.evaluation.summary import summaries
from greenseg.metrics.agreement import Agreement
from greenseg.report.statistics import mean_of
from tests.conftest import Command
from tests.data import datasets
from tests.data.datasets import Array, write, write_csv, write_nnunet
from tests.evaluation.masks import SPACING, block, folder_of
from tests.metrics.reference import dice_of, hd95_of, surfaces_of

NNUNET = {"Dice", "IoU", "FP", "FN", "TP", "TN", "n_pred", "n_ref"}


def compared(predictions: Path, references: Path, labels: str = "", **options: Any) -> Evaluation:
    return evaluation.evaluate(pair_up(predictions, references, labels=labels, **options), labels)


def problems_of(*arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        compared(*arguments, **options)
    return error.value.problems


def two_tissues(shift: int) -> Array:
    mask = block(1)
    mask[:, 9:12, 7 + shift : 10 + shift] = (mask[:, 9:12, 7 + shift : 10 + shift] > 0) * 2
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references with two labels: shifted, missed, spurious, both empty."""
    nothing = np.zeros_like(block())
    references = {"a": two_tissues(0), "b": two_tissues(0), "c": block(1), "d": nothing}
    predictions = {"a": two_tissues(1), "b": block(1, 2), "c": two_tissues(0), "d": nothing}
    return folder_of(tmp_path / "pred", predictions), folder_of(tmp_path / "ref", references)


def test_numbers_are_those_of_the_masks(folders: tuple[Path, Path], greenseg: Command, tmp_path: Path) -> None:
    options = ["--json", "s.json", "--csv", "s.csv", "--montage", "m.png", "--cases", "--tolerance", "3"]
    result = greenseg("evaluate", *folders, *options, COLUMNS="150")
    assert (result.returncode, result.stderr) == (0, "")
    data = json.loads((tmp_path / "s.json").read_text())
    assert {"metric_per_case", "mean", "foreground_mean"} < set(data)
    assert set(data["mean"]) == {"1", "2"}
    for values in (*data["mean"].values(), data["foreground_mean"]):
        assert set(values) > NNUNET
    for case in data["metric_per_case"]:
        name = case["name"]
        assert Path(case["prediction_file"]) == folders[0] / f"{name}.nii.gz"
        assert Path(case["reference_file"]) == folders[1] / f"{name}.nii.gz"
        prediction, reference = (sitk.GetArrayFromImage(sitk.ReadImage(str(f / f"{name}.nii.gz"))) for f in folders)
        for label, values in case["metrics"].items():
            mine, true = prediction == int(label), reference == int(label)
            assert set(values) > NNUNET
            assert (values["n_pred"], values["n_ref"]) == (mine.sum(), true.sum())
            assert values["TP"] + values["FP"] + values["FN"] + values["TN"] == mine.size
            if not mine.any() and not true.any():
                assert case["states"][label] == "empty"
                assert values["Dice"] is values["IoU"] is values["HD95"] is values["SurfaceDice"] is None
                continue
            assert values["Dice"] == pytest.approx(dice_of(mine, true))
            assert values["HD95"] == pytest.approx(hd95_of(mine, true, SPACING[::-1]))
            if mine.any() and true.any():
                assert (values["ASSD"], values["SurfaceDice"]) == pytest.approx(
                    surfaces_of(mine, true, SPACING[::-1], 3)
                )
    states = [case["states"] for case in data["metric_per_case"]]
    assert [state["2"] for state in states] == ["both", "missed", "spurious", "empty"]
    dice = [case["metrics"]["2"]["Dice"] for case in data["metric_per_case"]]
    assert dice[1:] == [0, 0, None]
    assert data["mean"]["2"]["Dice"] == pytest.approx(sum(dice[:3]) / 3)
    assert data["foreground_mean"]["Dice"] == pytest.approx((data["mean"]["1"]["Dice"] + data["mean"]["2"]["Dice"]) / 2)
    expected = mean_of(dice[:3])
    assert data["subjects"]["2"]["Dice"] == {
        "mean": expected.value, "low": expected.low, "high": expected.high, "n": 3,
    }  # fmt: skip

    with (tmp_path / "s.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [(row["volume"], row["class"]) for row in rows] == [(name, label) for name in "abcd" for label in "12"]
    assert [row["Dice"] for row in rows if row["class"] == "2"] == [*map(str, dice[:3]), ""]

    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["4", "volumes", "of", "4", "subjects,"] in [line[:5] for line in lines]
    (row,) = [line for line in lines if line[:1] == ["2"] and len(line) > 5]
    assert row[1:3] == [f"{expected.value:.4f}", f"±{expected.half:.4f}"]
    assert row[-3:] == ["1", "1", "1"], "missed, spurious, both empty"
    assert "Lowest Dice of 2: b (0.0000), c (0.0000), a" in result.stdout
    assert ["b", "2", "0.0000"] in [line[:3] for line in lines]

    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.png")))
    assert pixels.shape == (512, 768, 3)
    for colour in (REFERENCE, PREDICTION, BOTH):
        assert (pixels == colour).all(-1).sum() > 20
    assert not (pixels[256:, :256] == PREDICTION).all(-1).any(), "the worst of class 2 is b, which lacks it"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 3))
def test_a_missed_class_never_improves_a_mean(seed: int, volumes: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    agreements = []
    for _ in range(volumes):
        prediction, reference = (rng.random((3, 5, 5)) < density for density in (rng.random(), 0.5))
        reference[0, 0, 0] = True
        agreements.append(Agreement.of(prediction, reference, (3, 1, 1), 1.5))
    missed = Agreement.of(np.zeros_like(reference), reference, (3, 1, 1), 1.5)
    before, after = (
        summaries(
            Evaluation(
                Classes(("x",), ((1,),)),
                1.5,
                [VolumeResult(str(n), str(n % 3), (), (agreement,)) for n, agreement in enumerate(of_volumes)],
            )
        )[0].means
        for of_volumes in (agreements, [*agreements[:-1], missed])
    )
    for key, is_better in {"Dice": 1, "IoU": 1, "SurfaceDice": 1, "HD95": -1, "ASSD": -1}.items():
        one, two = before[key], after[key]
        assert one
        assert two
        assert two.value * is_better <= one.value * is_better + 1e-12


def test_a_missing_prediction_counts_as_an_empty_one(folders: tuple[Path, Path], greenseg: Command) -> None:
    predictions, references = folders
    before = compared(*folders)
    (predictions / "a.nii.gz").unlink()
    refused = greenseg("evaluate", *folders, "--json", "s.json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"error: {predictions}: 1 reference without prediction: {references / 'a.nii.gz'}")
    allowed = greenseg("evaluate", *folders, "--allow-missing")
    assert allowed.returncode == 0
    assert "note: 1 reference without a prediction (a): counted as empty" in allowed.stdout
    after = compared(*folders, allow_missing=True)
    assert [one.state for one in after.volumes[0].agreements] == ["missed", "missed"]
    assert after.volumes[1:] == before.volumes[1:]
    data = as_data(after)
    assert data["metric_per_case"][0]["prediction_file"] is None
    assert data["mean"]["1"]["Dice"] < as_data(before)["mean"]["1"]["Dice"]


def test_a_mask_along_other_axes_is_reoriented(tmp_path: Path) -> None:
    references = folder_of(tmp_path / "ref", {"a": block()})
    plain = compared(folder_of(tmp_path / "pred", {"a": block(1, 1)}), references)
    image = sitk.ReadImage(str(tmp_path / "pred" / "a.nii.gz"))
    turned = sitk.Flip(sitk.PermuteAxes(image, [1, 2, 0]), [False, True, False])
    (tmp_path / "turned").mkdir()
    sitk.WriteImage(turned, str(tmp_path / "turned" / "a.nii.gz"))
    assert compared(tmp_path / "turned", references).volumes[0].agreements == plain.volumes[0].agreements
    assert 0 < (plain.volumes[0].agreements[0].dice or 0) < 1


def test_other_geometry_and_values_are_refused_all_at_once(tmp_path: Path, greenseg: Command) -> None:
    references = folder_of(tmp_path / "ref", {name: block() for name in ("size", "spacing", "fraction", "damaged")})
    predictions = folder_of(tmp_path / "pred", {"size": block()[:, :20], "fraction": block(kind=np.float32) * 0.5})
    write(predictions / "spacing.nii.gz", block(), (1.5, 2, 5))
    (predictions / "damaged.nii.gz").write_bytes((references / "damaged.nii.gz").read_bytes()[:60])
    result = greenseg("evaluate", predictions, references, "--json", "s.json", "--labels", "1")
    assert (result.returncode, result.stdout) == (2, "")
    assert not (tmp_path / "s.json").exists()
    lines = result.stderr.splitlines()
    size, spacing = (next(x for x in lines if f"{name}.nii.gz: " in x) for name in ("size", "spacing"))
    assert "size 24×20×4, spacing 1.5×2×4 mm" in size
    assert "not size 24×24×4, spacing 1.5×2×4 mm" in size
    assert "spacing 1.5×2×5 mm" in spacing
    assert "not size 24×24×4, spacing 1.5×2×4 mm" in spacing
    assert "fraction.nii.gz: has values that are not labels" in result.stderr
    assert f"error: {predictions / 'damaged.nii.gz'}: " in result.stderr
    assert len(lines) == 4
    again = problems_of(predictions, references)
    assert len(again) == 4, "also without --labels, when the labels are looked for first"


def test_classes_without_names(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", {"a": block(7)})
    assert compared(one, one).classes == Classes(("foreground",), ((7,),))
    two = folder_of(tmp_path / "two", {"a": block(2)})
    found = compared(one, two)
    assert found.classes == Classes(("2", "7"), ((2,), (7,)))
    assert [agreement.dice for agreement in found.volumes[0].agreements] == [0, 0]
    assert found.notes[0] == "label 7: in no reference; --labels 2,7 makes one class of all"
    assert found.notes[1].startswith("label 2: in no prediction")
    together = compared(one, two, "2,7")
    assert together.volumes[0].agreements[0].dice == 1
    named = compared(one, two, "csf=2,brain=3+7")
    assert named.classes.names == ("csf", "brain")
    assert list(as_data(named)["mean"]) == ["2", "(3, 7)"]
    assert "class 'brain' (labels 3, 7): in no reference" in named.notes
    nothing = folder_of(tmp_path / "nothing", {"a": block(0)})
    empty = compared(nothing, nothing)
    assert [agreement.state for agreement in empty.volumes[0].agreements] == ["empty"]
    assert as_data(empty)["foreground_mean"]["Dice"] is None
    many = folder_of(tmp_path / "many", {"a": np.arange(4 * 24 * 24, dtype=np.uint16).reshape(4, 24, 24)})
    assert "2303 in total" in problems_of(many, many)[0]


def test_a_data_set_names_classes_and_ignored_labels(tmp_path: Path, greenseg: Command) -> None:
    reference = two_tissues(0)
    reference[1, 6:8] = 9
    labels = {"background": 0, "csf": 1, "brain": 2, "ignore": 9}
    root = write_nnunet(tmp_path / "nnunet", {"a": reference, "b": two_tissues(0)}, labels)
    predictions = folder_of(tmp_path / "pred", {"a": two_tissues(1), "b": two_tissues(1)}, spacing=datasets.SPACING)
    found = compared(predictions, root)
    assert any("'ignore' (label 9)" in note for note in found.notes)
    assert found.classes == Classes(("csf", "brain"), ((1,), (2,)))
    annotated = reference != 9
    for number, agreement in enumerate(found.volumes[0].agreements, 1):
        mine, true = (two_tissues(1) == number) & annotated, reference == number
        assert agreement.dice == pytest.approx(dice_of(mine, true))
        assert agreement.tp + agreement.fp + agreement.fn + agreement.tn == annotated.sum()
    assert "label 9: not annotated in this data set" in problems_of(predictions, root, "csf=1,x=9")[0]
    shown = greenseg("evaluate", predictions, root, "--montage", "m.png")
    assert shown.returncode == 0
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.png")))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "the image of the data set is behind the contours"

    unnamed = write_nnunet(tmp_path / "unnamed", {"a": two_tissues(0), "b": block()}, {"background": 0, "head": 1})
    found = compared(predictions, unnamed)
    assert found.classes == Classes(("foreground",), ((1, 2),))
    assert any("unless you set --labels" in note for note in found.notes)


def test_slices_in_files_of_their_own_form_a_volume(tmp_path: Path) -> None:
    predictions, references = (tmp_path / name for name in ("pred", "ref"))
    whole_prediction, whole = block(1, 1), block()
    for folder, volume in ((predictions, whole_prediction), (references, whole)):
        for number, plane in enumerate(volume):
            path = write(folder / f"case7_slice{number}_mask.nii.gz", plane[None], SPACING)
            image = sitk.ReadImage(str(path))
            image.SetOrigin((0, 0, number * 4.0))
            sitk.WriteImage(image, str(path))
    one = compared(folder_of(tmp_path / "p", {"case7": whole_prediction}), folder_of(tmp_path / "r", {"case7": whole}))
    found = compared(predictions, references)
    assert [volume.name for volume in found.volumes] == ["case7"]
    assert found.volumes[0].agreements == one.volumes[0].agreements
    (picture,) = worst_pictures(found, summaries(found))
    assert picture.prediction is not None
    assert (picture.classes.sum(), picture.prediction.sum()) == (8 * 6, 8 * 6)
    (case,) = as_data(found)["metric_per_case"]
    assert case["reference_file"] == [str(references / f"case7_slice{number}_mask.nii.gz") for number in range(4)]
    (references / "case7_slice2_mask.nii.gz").unlink()
    (predictions / "case7_slice2_mask.nii.gz").unlink()
    assert str(references) in problems_of(predictions, references)[0], "a missing slice"


def test_intervals_are_over_subjects(tmp_path: Path) -> None:
    shifts = {"s1_run-1": 0, "s1_run-2": 2, "s2_run-1": 3, "s3_run-1": 1}
    predictions = folder_of(tmp_path / "pred", {name: block(1, shift) for name, shift in shifts.items()})
    folder_of(tmp_path / "masks", {name: block() for name in shifts})
    rows = [
        {"image": f"masks/{name}.nii.gz", "mask": f"pred/{name}.nii.gz", "subject": name.partition("_")[0]}
        for name in shifts
    ]
    found = compared(tmp_path / "masks", write_csv(tmp_path / "x.csv", rows))
    dice = {volume.name: volume.agreements[0].dice or 0.0 for volume in found.volumes}
    assert list(dice) == ["s1_run-1", "s1_run-2", "s2", "s3"]
    (summary,) = summaries(found)
    assert summary.means["Dice"] == mean_of([(dice["s1_run-1"] + dice["s1_run-2"]) / 2, dice["s2"], dice["s3"]])
    assert as_data(found)["mean"]["1"]["Dice"] == pytest.approx(sum(dice.values()) / 4), "as nnU-Net: over cases"
    assert [volume.name for volume in summary.worst] == ["s2", "s1_run-2", "s3"]
    assert predictions.is_dir()


def test_2d_images_have_no_surface_distances(tmp_path: Path) -> None:
    flat = folder_of(tmp_path / "flat", {})
    write(flat / "a.nii.gz", block()[1], (1.5, 2))
    found = compared(flat, flat)
    (agreement,) = found.volumes[0].agreements
    assert (agreement.dice, agreement.hd95) == (1, None)
    assert "2D images" in found.notes[0]


def test_two_files(tmp_path: Path, greenseg: Command) -> None:
    folder = folder_of(tmp_path / "masks", {"new": block(1, 1), "old": block()})
    grey = np.random.default_rng(0).uniform(0, 9, (4, 24, 24)).astype(np.float32)
    images = folder_of(tmp_path / "images", {"old_0000": grey})
    files = folder / "new.nii.gz", folder / "old.nii.gz"
    result = greenseg("evaluate", *files, "--montage", "m.png", "--images", images)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 volume of 1 subject" in result.stdout
    assert "±" not in result.stdout
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.png")))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    folder_of(images, {"old_0000": grey[:2]})
    refused = greenseg("evaluate", *files, "--montage", "n.png", "--images", images, "--json", "s.json")
    assert refused.returncode == 2
    assert "old_0000.nii.gz: its grid differs from the reference's" in refused.stderr
    assert not (tmp_path / "s.json").exists()


def test_masks_that_are_all_empty(tmp_path: Path, greenseg: Command) -> None:
    nothing = folder_of(tmp_path / "nothing", {"a": block(0)})
    result = greenseg("evaluate", nothing, nothing, "--json", "s.json")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Lowest Dice of foreground: undefined in all volumes" in result.stdout
    assert json.loads((tmp_path / "s.json").read_text())["mean"]["1"]["Dice"] is None
    refused = greenseg("evaluate", nothing, nothing, "--montage", "m.png", "--csv", "s.csv")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--montage m.png: all masks are empty" in refused.stderr
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tolerance", "nan"], "--tolerance nan: must be a distance in mm, 0 or more"),
        (["--montage", "m.jpg"], "--montage m.jpg: name a .png file"),
        (["--json", "a", "--csv", "a"], "--json, --csv: use a different file for each"),
        (["--layout", "nnunett"], "did you mean 'nnunet'?"),
        (["--layout", "nnunet"], "no such folder"),
    ],
)
def test_mistakes(arguments: list[str], expected: str, folders: tuple[Path, Path], greenseg: Command) -> None:
    result = greenseg("evaluate", *folders, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_no_input_is_overwritten(folders: tuple[Path, Path], greenseg: Command) -> None:
    predictions, references = folders
    mask = references / "a.nii.gz"
    before = mask.read_bytes()
    done = greenseg("evaluate", predictions, references, "--json", mask, "--csv", references / "dataset.json")
    assert done.returncode == 2
    assert "name a .json file" in done.stderr
    assert "name a .csv file" in done.stderr
    assert mask.read_bytes() == before
    table = references / "cases.csv"
    table.write_text("image,mask\n")
    done = greenseg("evaluate", predictions, table, "--csv", table)
    assert "this is an input" in done.stderr
    assert table.read_text() == "image,mask\n"
