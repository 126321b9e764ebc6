"""The folder names of the E2MIP challenge and of its sample, whose stack names start over in each folder."""

import gzip
from pathlib import Path

import pytest

from greenseg.data.check import check
from greenseg.data.layout import look
from tests.data.datasets import grey, labelled, write
from tests.data.test_layout import add, touch
from tests.data.test_test_part import divided, mistakes, write_pairs


def stack(root: Path, name: str, first: int, slices: int = 2, start: int = 0) -> Path:
    """Slice files of a stack, with random pixels."""
    return write_pairs(root, *(f"{name}_slice{n:02}" for n in range(start, start + slices)), first=first)


def test_the_names_of_the_sample(tmp_path: Path) -> None:
    stack(tmp_path / "train_slice", "DWI_case0000", 0)
    stack(tmp_path / "validation_slice", "T2W_case0001", 10)
    write(tmp_path / "test_volume" / "DWI_case0008.nii.gz", grey(20))
    assert look(tmp_path).layout == "e2mip"
    assert divided(tmp_path) == {"train": ["DWI_case0000"], "validation": ["T2W_case0001"], "test": []}
    found = check(tmp_path)
    assert (found.problems, [case.subject for case in found.cases if case.split == "test"]) == ([], ["DWI_case0008"])
    write_pairs(tmp_path / "test_volume", "T2W_case0009", first=30)
    assert divided(tmp_path)["test"] == ["T2W_case0009"]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["training_data", "train_slice", "validation_data"], "both are for training"),
        (["training_data", "validation_slice", "validation_data"], "both are for validation"),
        (["training_data", "validation_data", "test_data", "test_volume"], "all have masks for the test part"),
    ],
)
def test_two_folders_for_one_split_are_named(folders: list[str], said: str, tmp_path: Path) -> None:
    for number, folder in enumerate(folders):
        add(tmp_path / folder, f"s{number}")
    (problem,) = mistakes(tmp_path)
    assert said in problem
    assert sum(f"{tmp_path / folder}" in problem for folder in folders) == 2


def test_names_of_both_kinds_go_together(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a")
    add(tmp_path / "validation_slice", "b")
    add(tmp_path / "test_data", "c")
    touch(tmp_path, "testing_data/d.nii.gz", "test_volume/e.nii.gz")
    assert divided(tmp_path) == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    assert [entry.subject for entry in look(tmp_path).entries if entry.mask is None] == ["d", "e"]


def test_a_name_in_two_folders_with_other_files_is_two_subjects(tmp_path: Path) -> None:
    stack(tmp_path / "train_slice", "DWI_vol0000", 0, slices=3)
    stack(tmp_path / "train_slice", "T2W_vol0001", 10)
    stack(tmp_path / "validation_slice", "DWI_vol0000", 20)
    found = look(tmp_path)
    assert found.problems == []
    (note,) = found.notes
    assert "'DWI_vol0000 (training)', 'DWI_vol0000 (validation)'" in note
    assert f"{tmp_path}/train_slice/images and {tmp_path}/validation_slice/images" in note
    assert divided(tmp_path) == {
        "train": ["DWI_vol0000 (training)", "T2W_vol0001"], "validation": ["DWI_vol0000 (validation)"], "test": [],
    }  # fmt: skip
    assert note in check(tmp_path).notes
    folds = [divided(tmp_path, folds=3, fold=fold)["validation"] for fold in range(3)]
    assert sorted(map(len, folds)) == [1, 1, 1]

    file = tmp_path / "s.csv"
    file.write_text("subject,split\nDWI_vol0000 (training),val\nDWI_vol0000 (validation),test\nT2W_vol0001,train\n")
    assert divided(tmp_path, split_from=str(file))["validation"] == ["DWI_vol0000 (training)"]


def test_the_test_part_renames_no_other_subject(tmp_path: Path) -> None:
    stack(tmp_path / "training_data", "x", 0)
    stack(tmp_path / "validation_data", "y", 10)
    stack(tmp_path / "test_data", "x", 20)
    stack(tmp_path / "test_data", "y", 30)
    assert divided(tmp_path) == {"train": ["x"], "validation": ["y"], "test": ["x (test)", "y (test)"]}
    stack(tmp_path / "validation_data", "x", 40)
    assert divided(tmp_path)["train"] == ["x (training)"]
    assert divided(tmp_path)["test"] == ["x (test)", "y (test)"]


def test_the_same_slice_in_two_folders_is_an_error(tmp_path: Path) -> None:
    """Even if only one of several slices is the same, and even if it is compressed again."""
    stack(tmp_path / "training_data", "x", 0, slices=3)
    stack(tmp_path / "validation_data", "x", 10, slices=3)
    images = [tmp_path / f"{split}_data" / "images" / "x_slice01.nii.gz" for split in ("training", "validation")]
    assert divided(tmp_path)["validation"] == ["x (validation)"]
    content = gzip.decompress(images[0].read_bytes())
    for level in (1, 9):
        images[1].write_bytes(gzip.compress(content, level, mtime=level))
        (problem,) = mistakes(tmp_path)
        assert "subject 'x' is in two splits" in problem
        assert f"{images[1]} has the same content as {images[0]}" in problem
    images[1].write_bytes(images[0].read_bytes())
    assert len(mistakes(tmp_path)) == 1


def test_uncompressed_slices_and_series_are_compared_too(tmp_path: Path) -> None:
    for folder, number in (("training_data", 0), ("validation_data", 1)):
        write(tmp_path / folder / "images" / "x.nii", grey(number))
        write(tmp_path / folder / "masks" / "x_mask.nii", labelled())
    assert divided(tmp_path)["train"] == ["x (training)"]
    write(tmp_path / "validation_data" / "images" / "x.nii", grey(0))
    assert "has the same content" in mistakes(tmp_path)[0]
    for folder in ("training_data", "validation_data"):
        (tmp_path / folder / "images" / "x.nii").unlink()
        touch(tmp_path, f"{folder}/images/x/1.dcm")
    assert "has the same content" in mistakes(tmp_path)[0]
    (tmp_path / "training_data" / "images" / "x" / "1.dcm").write_text("other")
    assert divided(tmp_path)["train"] == ["x (training)"]


def test_other_slice_numbers_of_one_name_stay_an_error(tmp_path: Path) -> None:
    """They are what a stack that was divided between the folders looks like."""
    stack(tmp_path / "training_data", "x", 0)
    stack(tmp_path / "validation_data", "x", 10, start=2)
    (problem,) = mistakes(tmp_path)
    assert "subject 'x' is in two splits, validation here and train in" in problem
    assert "they may be slices of one stack" in problem
