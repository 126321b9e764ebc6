"""Images, masks, subjects and splits are found by name; no file is opened."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from greenseg.data.layout import EXPECTED, SUFFIXES, subject_of
from greenseg.data.splits import Case, scan
from greenseg.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def add(root: Path, *subjects: str) -> Path:
    """Subjects directly in the folder, one file each."""
    for subject in subjects:
        touch(root, f"images/{subject}.nii.gz", f"masks/{subject}_mask.nii.gz")
    return root


def splits(cases: list[Case]) -> dict[str, list[str]]:
    return {split: [case.subject for case in cases if case.split == split] for split in ("train", "validation")}


def mistakes(root: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        scan(root)
    return [problem.removeprefix(f"{root}/") for problem in caught.value.problems]


# ── names


@pytest.mark.parametrize(
    ("stem", "subject"),
    [
        ("DWI_case0001_slice14", "DWI_case0001"),
        ("case-slice-3", "case"),
        ("case_Slice_003", "case"),
        ("img_0003", "img_0003"),
        ("slice14", "slice14"),
        ("case_slice", "case_slice"),
        ("case_slice3_b", "case_slice3_b"),
    ],
)
def test_subject_of(stem: str, subject: str) -> None:
    assert subject_of(stem) == subject


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img_0001.nii.gz", "mask_0001.nii.gz"),
        ("img_0001.nii.gz", "img_0001_mask.nii.gz"),
        ("img0001.nii.gz", "mask0001.nii.gz"),
        ("image-1.nii", "mask-1.nii.gz"),
        ("case.x.nrrd", "case.x_mask.mha"),
        ("A_slice1.MHA", "A_slice1_mask.NII.GZ"),
        ("imgur.nii", "imgur_mask.nii"),
    ],
)
def test_both_names_of_a_mask(image: str, mask: str, tmp_path: Path) -> None:
    touch(tmp_path, f"training_data/images/{image}", f"training_data/masks/{mask}")
    add(tmp_path / "validation_data", "other")
    case = scan(tmp_path)[0]
    assert case.files == ((tmp_path / "training_data" / "images" / image, tmp_path / "training_data" / "masks" / mask),)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(tmp_path, f"images/{name}{suffix}", f"masks/{name}_mask{suffix}")
    assert len(scan(tmp_path)) == 2


def test_other_files_are_ignored(tmp_path: Path) -> None:
    add(tmp_path, "a", "b")
    touch(tmp_path, "images/readme.txt", "masks/a.raw", "images/.DS_Store", "notes/x.nii", "images/Thumbs.db")
    assert len(scan(tmp_path)) == 2


# ── subjects and splits


def test_slices_of_a_subject_stay_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "b_slice2", "a", "b_slice1", "b_slice3")
    add(tmp_path / "validation_data", "c_slice1", "c_slice2")
    cases = scan(tmp_path)
    assert splits(cases) == {"train": ["a", "b"], "validation": ["c"]}
    names = [image.name for image, _ in cases[1].files]
    assert names == ["b_slice1.nii.gz", "b_slice2.nii.gz", "b_slice3.nii.gz"]


def test_validation_data_validates_whatever_the_share(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a", "b", "c")
    add(tmp_path / "validation_data", "d")
    for share in (0.01, 0.99):
        assert splits(scan(tmp_path, share)) == {"train": ["a", "b", "c"], "validation": ["d"]}


@pytest.mark.parametrize("inner", ["", "training_data"])
def test_without_validation_data_subjects_are_held_out(inner: str, tmp_path: Path) -> None:
    subjects = [f"s{number:02}" for number in range(40)]
    add(tmp_path / inner, *subjects)
    found = splits(scan(tmp_path))
    assert sorted(found["train"] + found["validation"]) == subjects
    assert 2 <= len(found["validation"]) <= 16  # 8 ± 3 standard deviations, and always the same


_NAMES = st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=2, max_size=9, unique=True)


@given(names=_NAMES, share=st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_both_splits_are_filled_and_share_no_subject(
    names: list[str], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = splits(scan(add(tmp_path_factory.mktemp("data"), *names), share))
    assert found["train"]
    assert found["validation"]
    assert sorted(found["train"] + found["validation"]) == sorted(names)


@given(names=_NAMES, share=st.floats(0.05, 0.95), wider=st.floats(0, 0.5))
@settings(deadline=None, max_examples=60)
def test_adding_a_subject_moves_no_other(
    names: list[str], share: float, wider: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    *old, _ = names
    assume(len(old) > 2)
    root = tmp_path_factory.mktemp("data")
    before = splits(scan(add(root, *old), share))
    # With one subject only on a side, it may be there because the side would be empty.
    assume(min(map(len, before.values())) > 1)
    after = splits(scan(add(root, *names), share))
    assert set(before["train"]) <= set(after["train"])
    assert set(before["validation"]) <= set(after["validation"])
    more = splits(scan(root, min(share + wider, 0.99)))
    assert set(after["validation"]) <= set(more["validation"])


def test_the_split_stays_what_it_was(tmp_path: Path) -> None:
    """Where it changes, old and new results on somebody's data no longer compare."""
    assert splits(scan(add(tmp_path, *"abcdefghij")))["validation"] == ["c", "d", "f", "j"]


# ── mistakes


def test_a_missing_folder_is_said_with_what_belongs_there(tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path / "nowhere")
    assert problem.startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert EXPECTED in problem
    assert "phantom" in problem


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path, "file.nii.gz")
    assert "is a file; a data set is a folder" in mistakes(tmp_path / "file.nii.gz")[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], ["images and {}/masks: no such folder"]),
        (["images/a.nii"], ["masks: no such folder"]),
        (["training_data/masks/a.nii"], ["training_data/images: no such folder"]),
        (["images/a.txt", "masks/a.txt"], ["images: no images (.nii.gz, "]),
        (["images/a.nii", "masks/a_mask.nii"], ["one subject only; at least 2"]),
        (["images/a_slice1.nii", "masks/a_slice1_mask.nii", "images/a_slice2.nii", "masks/a_slice2_mask.nii"],
         ["one subject only; at least 2"]),
        (["images/a.nii", "masks/b_mask.nii"],
         ["images/a.nii: image without mask; expected {}/masks/a_mask.nii.gz",
          "masks/b_mask.nii: mask without image; expected its image in {}/images"]),
        (["images/img_1.nii", "masks/x.txt"],
         ["images/img_1.nii: image without mask; expected {}/masks/img_1_mask.nii.gz or mask_1.nii.gz"]),
        (["training_data/images/a.nii", "training_data/masks/a_mask.nii", "validation_data/images/b.nii"],
         ["validation_data/masks: no such folder"]),
        (["training_data/images/a.nii", "training_data/masks/a_mask.nii", "validation_data/images/b.txt",
          "validation_data/masks/b.txt"], ["validation_data/images: no images"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_path(files: list[str], expected: list[str], tmp_path: Path) -> None:
    problems = mistakes(touch(tmp_path, *files))
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert start.format(tmp_path) in problem


def test_a_subject_in_both_splits_is_named(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a_slice1", "b", "c")
    add(tmp_path / "validation_data", "a_slice2", "b", "d")
    assert mistakes(tmp_path) == [
        f"validation_data/images/{there}: subject '{subject}' is in two splits, validation here and train in "
        f"{tmp_path}/training_data/images/{here}; keep a subject in one split"
        for subject, there, here in (("a", "a_slice2.nii.gz", "a_slice1.nii.gz"), ("b", "b.nii.gz", "b.nii.gz"))
    ]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a", "b")
    add(tmp_path / "validation_data", "a", "c")
    touch(
        tmp_path, "training_data/images/x.nii", "training_data/images/y.nii", "training_data/masks/z_mask.nii",
        "validation_data/images/x.nii",
    )  # fmt: skip
    assert [problem.partition(":")[0] for problem in mistakes(tmp_path)] == [
        "training_data/images/x.nii", "training_data/images/y.nii", "training_data/masks/z_mask.nii",
        "validation_data/images/x.nii", "validation_data/images/a.nii.gz",
    ]  # fmt: skip


def test_two_images_never_share_a_mask(tmp_path: Path) -> None:
    add(tmp_path, "a", "b")
    touch(tmp_path, "images/a.nrrd")
    assert [problem.partition(":")[0] for problem in mistakes(tmp_path)] == ["images/a.nrrd"]


def test_two_masks_of_one_image_are_a_mistake(tmp_path: Path) -> None:
    """Which of them is right is not for us to guess."""
    add(tmp_path, "a", "b")
    touch(tmp_path, "masks/a_mask.nrrd")
    assert len(mistakes(tmp_path)) == 1
