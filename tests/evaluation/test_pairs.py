"""Which prediction belongs to which reference."""

from pathlib import Path

import numpy as np
import pytest

from greenseg.errors import UserError
from greenseg.evaluation.pairs import Pair, core_of, pair_up
from tests.data.datasets import write, write_bids, write_csv, write_nnunet
from tests.evaluation.masks import block, folder_of


def names_of(pairs: list[Pair]) -> dict[str, str | None]:
    return {pair.reference.name: pair.prediction.name if pair.prediction else None for pair in pairs}


def problems_of(*arguments: Path, **options: object) -> list[str]:
    with pytest.raises(UserError) as error:
        pair_up(*arguments, **options)  # type: ignore[arg-type]
    return error.value.problems


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("CASE_001", "CASE_001"),
        ("a_maskpred", "a_mask"),
        ("a_pred", "a"),
        ("a", "a_seg"),
        ("sub-01_seg", "sub-01_dseg"),
        ("mask_0003", "img_0003"),
        ("img_0003_maskpred", "mask_0003"),
        ("mask_a", "a"),
        ("a_mask_pred", "a-label"),
        ("A_MASK", "A"),
    ],
)
def test_names_that_belong_together(prediction: str, reference: str, tmp_path: Path) -> None:
    predictions = folder_of(tmp_path / "pred", {prediction: block(), "other": block()}, ".nrrd")
    references = folder_of(tmp_path / "ref", {reference: block(), "other": block()})
    found = names_of(pair_up(predictions, references).pairs)
    assert found == {f"{reference}.nii.gz": f"{prediction}.nrrd", "other.nii.gz": "other.nrrd"}


def test_a_name_never_becomes_empty() -> None:
    assert [core_of(stem) for stem in ("mask", "_mask", "seg", "mask_pred", "1", "mask1", "masked_1")] == [
        "mask", "_mask", "seg", "mask", "1", "1", "masked_1",
    ]  # fmt: skip


def test_whole_names_come_first(tmp_path: Path) -> None:
    masks = {"a": block(), "a_seg": block()}  # nnU-Net takes any name
    predictions, references = (folder_of(tmp_path / name, masks) for name in ("pred", "ref"))
    assert names_of(pair_up(predictions, references).pairs) == {"a.nii.gz": "a.nii.gz", "a_seg.nii.gz": "a_seg.nii.gz"}


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    predictions = folder_of(
        tmp_path / "pred", {"a": block(), "a_mask": block(), "b": block(), "new": block(), "c": block()}
    )
    folder_of(predictions, {"c": block()}, ".nrrd")
    references = folder_of(tmp_path / "ref", {"a": block(), "b_mask": block(), "b_seg": block(), "c": block()})
    folder_of(references, {"lost": block()})
    problems = problems_of(predictions, references)
    lonely = [problem for problem in problems if problem.startswith(f"{predictions}: ")]
    assert any("1 prediction without reference: new.nii.gz" in problem for problem in lonely)
    missing = f"1 reference without prediction: {references / 'lost.nii.gz'}"
    assert any(missing in problem and str(predictions / "lost.nii.gz") in problem for problem in lonely)
    for path, text in {
        references / "a.nii.gz": "several predictions (a.nii.gz, a_mask.nii.gz)",
        predictions / "b.nii.gz": "fits several references (b_mask.nii.gz, b_seg.nii.gz)",
        predictions / "c.nrrd": "a second prediction with the same name",
    }.items():
        assert sum(problem.startswith(f"{path}: {text}") for problem in problems) == 1, (path, problems)
    assert len(problems) == 5


def test_a_missing_prediction_may_be_allowed(tmp_path: Path) -> None:
    predictions = folder_of(tmp_path / "pred", {"a": block()})
    references = folder_of(tmp_path / "ref", {"a": block(), "b": block()})
    assert "--allow-missing" in problems_of(predictions, references)[0]
    found = pair_up(predictions, references, allow_missing=True)
    assert names_of(found.pairs) == {"a.nii.gz": "a.nii.gz", "b.nii.gz": None}
    assert found.notes == ["1 reference without a prediction (b): counted as empty"]


def test_files_and_folders(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "masks", {"a": block(), "b": block()})
    (tmp_path / "empty").mkdir()
    a, b = folder / "a.nii.gz", folder / "b.nii.gz"
    assert names_of(pair_up(a, b).pairs) == {"b.nii.gz": "a.nii.gz"}, "two files are a pair, whatever their names"
    assert f"{a} is a file, {folder} a folder" in problems_of(a, folder)[0]
    assert "is a folder" in problems_of(folder, a)[0]
    assert "is a file" in problems_of(a, write_csv(tmp_path / "x.csv", [{"image": "a", "mask": "b"}]))[0]
    assert len(problems_of(tmp_path / "no", tmp_path / "where")) == 2
    assert f"{tmp_path / 'empty'}: no masks" in problems_of(tmp_path / "empty", folder)[0]
    assert f"{tmp_path / 'empty'}: no masks" in problems_of(folder, tmp_path / "empty")[0]


def test_references_of_each_layout(tmp_path: Path) -> None:
    masks = {"a": block(1), "b": block(2)}
    labels = {"background": 0, "one": 1, "two": 2, "ignore": 3}
    nnunet = write_nnunet(tmp_path / "nnunet", masks, labels)
    found = pair_up(folder_of(tmp_path / "of_nnunet", masks), nnunet)
    assert names_of(found.pairs) == {"a.nii.gz": "a.nii.gz", "b.nii.gz": "b.nii.gz"}
    assert found.classes
    assert found.classes.names == ("one", "two")
    assert found.pairs[0].ignored == (3,)
    assert found.pairs[0].image == nnunet / "imagesTr" / "a_0000.nii.gz"

    bids = write_bids(tmp_path / "bids", masks)
    by_mask = {f"sub-{name}_rec-mial_dseg": mask for name, mask in masks.items()}
    by_image = {f"sub-{name}_rec-mial_T2w_seg": mask for name, mask in masks.items()}
    by_subject = {f"sub-{name}": mask for name, mask in masks.items()}
    for number, of_kind in enumerate((by_mask, by_image, by_subject)):
        found = pair_up(folder_of(tmp_path / f"of_bids{number}", of_kind), bids)
        assert [pair.prediction.name for pair in found.pairs if pair.prediction] == [f"{n}.nii.gz" for n in of_kind]
        assert [pair.subject for pair in found.pairs] == ["sub-a", "sub-b"]

    rows = [
        {"image": f"nnunet/imagesTr/{name}_0000.nii.gz", "mask": f"nnunet/labelsTr/{name}.nii.gz", "subject": name * 2}
        for name in masks
    ]
    found = pair_up(folder_of(tmp_path / "of_csv", {"aa": block(), "b": block()}), write_csv(tmp_path / "x.csv", rows))
    assert [pair.subject for pair in found.pairs] == ["aa", "bb"]

    training = tmp_path / "e2mip" / "training_data"
    training.mkdir(parents=True)
    folder_of(training / "images", {"img_0000": block(), "case1": block()})
    folder_of(training / "masks", {"mask_0000": block(), "case1_mask": block()})
    predictions = folder_of(tmp_path / "of_e2mip", {"img_0000_maskpred": block(), "case1": block()})
    found = pair_up(predictions, tmp_path / "e2mip")
    assert names_of(found.pairs) == {
        "mask_0000.nii.gz": "img_0000_maskpred.nii.gz",
        "case1_mask.nii.gz": "case1.nii.gz",
    }
    assert problems_of(predictions, tmp_path / "nnunet" / "labelsTr"), "a folder with masks is no data set"


@pytest.mark.parametrize(("predicted", "left_out"), [("ab", "training and validation"), ("cd", "test part")])
def test_the_test_part_can_be_compared_alone(predicted: str, left_out: str, tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "nnunet", {"c": block(), "d": block()}, {"background": 0, "one": 1})
    for name in "ab":
        write(root / "imagesTs" / f"{name}_0000.nii.gz", block())
        write(root / "labelsTs" / f"{name}.nii.gz", block())
    found = pair_up(folder_of(tmp_path / "pred", {name: block() for name in predicted}), root)
    assert names_of(found.pairs) == {f"{name}.nii.gz": f"{name}.nii.gz" for name in predicted}
    assert found.notes == [f"no prediction for the {left_out}: 2 references left out"]
    both = folder_of(tmp_path / "both", {name: block() for name in "abc"})
    (problem,) = problems_of(both, root)
    assert f"1 reference without prediction: {root / 'labelsTr' / 'd.nii.gz'}" in problem


def test_problems_of_the_data_set_are_named_too(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "nnunet", {"a": block(), "b": block()}, {"background": 0, "one": 1})
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    predictions = folder_of(tmp_path / "pred", {"a": block(), "c": block()})
    problems = problems_of(predictions, root)
    assert any("mask without image" in problem for problem in problems)
    assert any("prediction without reference" in problem for problem in problems)


def test_images_of_the_references(tmp_path: Path) -> None:
    masks = {"a_mask": block(), "b_mask": block()}
    predictions, references = (folder_of(tmp_path / name, masks) for name in ("pred", "ref"))
    grey = np.ones((4, 24, 24), np.float32)
    images = folder_of(tmp_path / "images", {"a_0000": grey, "a_0001": grey, "b": grey})
    found = pair_up(predictions, references, images=images)
    assert [pair.image and pair.image.name for pair in found.pairs] == ["a_0000.nii.gz", "b.nii.gz"]
    (images / "b.nii.gz").unlink()
    (problem,) = problems_of(predictions, references, images=images)
    assert problem.startswith(f"{images}: no image for the reference {references / 'b_mask.nii.gz'}")
    assert "no such folder" in problems_of(predictions, references, images=tmp_path / "nowhere")[0]
