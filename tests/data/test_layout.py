"""Images, masks, subjects and splits are found by name; no file is opened."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from greenseg.data.check import check
from greenseg.data.layout import look
from greenseg.data.listing import BROKEN, EXPECTED, SUFFIXES, subject_of
from greenseg.data.splits import Case, scan, split_csv
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
        ("case_z03", "case"),
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


@given(
    names=st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=6, max_size=20, unique=True),
    share=st.floats(0.1, 0.9),
    wider=st.floats(0, 0.5),
)
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
    expected = [
        f"validation_data/images/{there}: subject '{subject}' is in two splits, validation here and train in "
        f"{tmp_path}/training_data/images/{here}; keep each subject in one split"
        for subject, there, here in (("a", "a_slice2.nii.gz", "a_slice1.nii.gz"), ("b", "b.nii.gz", "b.nii.gz"))
    ]
    assert [problem.partition(" (")[0] for problem in mistakes(tmp_path)] == expected


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
    touch(tmp_path, "images/a.nii", "images/b_slice10.nii")
    assert mistakes(tmp_path)[0] == "images/a.nii.gz: a second image with the same name (a.nii); keep one of them"


@pytest.mark.parametrize("layout", ["nnunet", "bids"])
def test_an_image_packed_and_plain_is_said_in_every_layout(layout: str, tmp_path: Path) -> None:
    if layout == "nnunet":
        touch(nnunet(tmp_path, "a", "b"), "imagesTr/a_0000.nii")
    else:
        touch(bids(tmp_path, 1, 2), "sub-1/anat/sub-1_T2w.nii")
    (problem,) = mistakes(tmp_path)
    assert "a second image with the same name (" in problem


def test_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    add(tmp_path, *(f"c2_slice{n}" for n in (0, 1, 10, 2)), *(f"c10_slice{n}" for n in ("01", "3", "20")))
    found = look(tmp_path)
    assert [entry.image.name.removesuffix(".nii.gz") for entry in found.entries] == [
        "c2_slice0", "c2_slice1", "c2_slice2", "c2_slice10", "c10_slice01", "c10_slice3", "c10_slice20",
    ]  # fmt: skip


def test_two_masks_of_one_image_are_a_mistake(tmp_path: Path) -> None:
    """Which of them is right is not for us to guess."""
    add(tmp_path, "a", "b")
    touch(tmp_path, "masks/a_mask.nrrd")
    assert len(mistakes(tmp_path)) == 1


@pytest.mark.parametrize("gone", ["images", "masks"])
def test_a_link_to_nowhere_and_a_pipe_are_said_at_once(gone: str, tmp_path: Path) -> None:
    """Data sets of git-annex are full of links whose content was not fetched; a pipe would block for ever."""
    add(tmp_path, "a", "b")
    first, second = sorted((tmp_path / gone).iterdir())
    for path in (first, second):
        path.unlink()
    first.symlink_to(tmp_path / "nowhere")
    os.mkfifo(second)
    assert [problem.partition(": ")[0] for problem in mistakes(tmp_path)] == [
        f"{gone}/{p.name}" for p in (first, second)
    ]


def test_a_linked_folder_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    """It would be a DICOM series."""
    add(tmp_path, "a", "b")
    (tmp_path / "images" / "c").symlink_to(tmp_path / "nowhere")
    assert mistakes(tmp_path)[0].startswith("images/c: cannot be read: a broken link")


def test_a_name_that_is_no_text_is_said(tmp_path: Path) -> None:
    add(tmp_path, "a", "b", os.fsdecode(b"\xe4"))
    assert mistakes(tmp_path) == ["images/\\udce4.nii.gz: the name is not UTF-8; rename it"]


# ── E2MIP


def test_images_to_test_with_are_listed_and_not_trained_on(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a")
    add(tmp_path / "validation_data", "b")
    touch(tmp_path, "testing_data/c_slice1.nii.gz", "testing_data/notes.txt")
    assert [e.subject for e in look(tmp_path).entries if e.split == "test"] == ["c"]
    assert [case.subject for case in scan(tmp_path)] == ["a", "b"]


def test_a_folder_of_a_dicom_series_is_an_image(tmp_path: Path) -> None:
    add(tmp_path, "a")
    touch(tmp_path, "images/b/1.dcm", "images/b/2.dcm", "masks/b_mask.nii.gz")
    assert scan(tmp_path)[1].files == ((tmp_path / "images" / "b", tmp_path / "masks" / "b_mask.nii.gz"),)


# ── nnU-Net


def nnunet(root: Path, *cases: str, description: str | None = '{"channel_names": {"0": "T2"}}') -> Path:
    for case in cases:
        touch(root, f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz")
    if description is not None:
        (root / "dataset.json").write_text(description)
    return root


def test_nnunet(tmp_path: Path) -> None:
    nnunet(tmp_path, "a_001", "b_002", "c_003")
    touch(tmp_path, "imagesTs/d_004_0000.nii.gz")
    found = look(tmp_path)
    assert (found.layout, found.problems, found.notes) == ("nnunet", [], [])
    assert [(e.subject, e.split) for e in found.entries] == [
        ("a_001", None), ("b_002", None), ("c_003", None), ("d_004", "test"),
    ]  # fmt: skip
    assert len(scan(tmp_path)) == 3


@pytest.mark.parametrize(
    "description", [None, '{"modality": {"0": "T2", "1": "DWI"}}', '{"channel_names": {"1": "DWI", "0": "T2"}}']
)
def test_all_channels_are_used_or_those_that_are_named(description: str | None, tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description=description)
    touch(tmp_path, "imagesTr/a_0001.nii.gz", "imagesTr/b_0001.nii.gz", "imagesTs/c_0000.nii", "imagesTs/c_0001.nii")
    names = ("0", "1") if description is None else ("T2", "DWI")
    for channels, numbers in {"": (0, 1), "0": (0,), ",".join(names[::-1]): (1, 0), names[1]: (1,)}.items():
        found = look(tmp_path, channels=channels)
        assert (found.problems, found.notes) == ([], [])
        used = [[path.name[:6] for path in entry.images] for entry in found.entries]
        assert used == [[f"{case}_{number:04}" for number in numbers] for case in "abc"]
        assert found.channels == tuple(names[number] for number in numbers)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ("DWY", "no channel 'DWY'; valid: 0 (T2), 1 (DWI)"),
        ("T2,2", "no channel '2'; valid: 0 (T2), 1 (DWI)"),
        ("T2,0", "'0' is channel 0 (T2) again; name it once"),
    ],
)
def test_channels_that_nnunet_lacks_are_said(channels: str, said: str, tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description='{"channel_names": {"0": "T2", "1": "DWI"}}')
    touch(tmp_path, "imagesTr/a_0001.nii.gz", "imagesTr/b_0001.nii.gz")
    assert look(tmp_path, channels=channels).problems == [f"{tmp_path}: channels: {said}"]


def test_two_channels_with_one_name_are_told_apart_by_number(tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description='{"channel_names": {"0": "T2", "1": "T2"}}')
    touch(tmp_path, "imagesTr/a_0001.nii.gz", "imagesTr/b_0001.nii.gz")
    assert look(tmp_path, channels="1").problems == []
    (problem,) = look(tmp_path, channels="T2").problems
    assert problem.endswith("2 channels have the name 'T2'; name their numbers: 0, 1")


_NO_DESCRIPTION = "not a description of an nnU-Net data set: "


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("{", _NO_DESCRIPTION), ("[]", _NO_DESCRIPTION), ("\0", _NO_DESCRIPTION), ("[" * 100_000, _NO_DESCRIPTION),
        ('{"channel_names": ["T2"]}', "channel_names: must be a mapping of number to name"),
        ('{"channel_names": 3}', "channel_names: must be a mapping of number to name"),
        ('{"modality": {"first": "T2"}}', "modality: must be a mapping of number to name"),
        ('{"labels": null}', "labels: must be a mapping of name to number"),
        ('{"labels": ["brain"]}', "labels: must be a mapping of name to number"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_json_is_named(description: str, why: str, tmp_path: Path) -> None:
    (problem,) = mistakes(nnunet(tmp_path, "a", "b", description=description))
    assert problem.startswith(f"dataset.json: {why}")


@pytest.mark.parametrize("case", [3, "x.nii", {"label": "y"}, {"images": "x.nii", "label": "y"}, {"images": ["x"]}])
def test_a_wrong_case_of_dataset_json_is_named(case: object, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": {"case7": case}}))
    (problem,) = mistakes(tmp_path)
    assert problem.startswith("dataset.json: dataset: case7: a case needs 'images', a list of files")


def test_a_dataset_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description="\ufeff" + '{"channel_names": {"0": "T2"}}')
    assert look(tmp_path).problems == []


@pytest.mark.parametrize(
    ("labels", "ignored"),
    [
        ({"background": 0, "brain": 1, "ignore": 2}, (2,)),
        ({"background": 0, "whole": [1, 2, 3], "core": 5, "ignore": 4}, (4,)),
        ({"background": 0, "brain": 1, "Ignore": [255]}, (255,)),
        ({"0": "background", "1": "brain", "2": "ignore"}, (2,)),
        ({"0": "background", "1": "brain"}, ()),
        ({"background": 0, "ignored region": 1}, ()),
    ],
)
def test_the_label_ignore_of_nnunet(labels: dict[str, object], ignored: tuple[int, ...], tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description=json.dumps({"channel_names": {"0": "T2"}, "labels": labels}))
    found = look(tmp_path)
    assert [entry.ignored for entry in found.entries] == [ignored] * 2
    assert found.problems == []
    assert len(found.notes) == bool(ignored)
    (tmp_path / "split.csv").write_text(split_csv(scan(tmp_path)))
    assert scan(tmp_path / "split.csv") == scan(tmp_path), "a written split keeps it"


@pytest.mark.parametrize("value", ["0", "[0]", '"two"', "2.5", "null", "-1"])
def test_a_label_ignore_that_is_none_is_named(value: str, tmp_path: Path) -> None:
    (problem,) = mistakes(nnunet(tmp_path, "a", "b", description=f'{{"labels": {{"ignore": {value}}}}}'))
    assert problem.startswith("dataset.json: labels: ")


@pytest.mark.parametrize(
    ("description", "files", "notes"),
    [
        ('{"channel_names": {"0": "T2"}}', 2,
         ["{}/dataset.json: names 1 channel (T2), but case a has 2"]),
        ('{"channel_names": {"0": "T2", "1": "DWI"}}', 1,
         ["{}/dataset.json: names 2 channels (T2, DWI), but case a has 1"]),
    ],
)  # fmt: skip
def test_channels_are_those_of_the_files(description: str, files: int, notes: list[str], tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", description=description)
    touch(tmp_path, *(f"imagesTr/{case}_{n:04}.nii.gz" for case in "ab" for n in range(files)))
    assert look(tmp_path).notes == [note.format(tmp_path) for note in notes]


def test_a_case_that_lacks_a_channel_is_said(tmp_path: Path) -> None:
    touch(nnunet(tmp_path, "a", "b"), "imagesTr/c_0001.nii.gz", "imagesTr/d_0001.nii.gz", "labelsTr/d.nii.gz")
    assert [problem.partition(", which")[0] for problem in mistakes(tmp_path)] == [
        "imagesTr/a_0001.nii.gz: missing; case a lacks channel 1",
        "imagesTr/b_0001.nii.gz: missing; case b lacks channel 1",
        "imagesTr/c_0000.nii.gz: missing; case c lacks channel 0 (T2)",
        "imagesTr/d_0000.nii.gz: missing; case d lacks channel 0 (T2)",
    ]
    assert [entry.subject for entry in look(tmp_path, channels="T2").entries] == ["a", "b"]


def test_nnunet_files_that_dataset_json_names(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.nii", "x/2.nii", "y/3.nii", "m1.nii", "m2.nii")
    cases = {"a": {"images": ["x/1.nii", "x/2.nii"], "label": "m1.nii"},
             "b": {"images": [str(tmp_path / "y/3.nii")], "label": "m2.nii"}}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"ignore": 3}, "dataset": cases}))
    (problem,) = mistakes(tmp_path)
    assert problem.startswith("dataset.json: dataset: b: lacks channel 1, which other cases have: ")
    found = look(tmp_path, channels="0")
    assert (found.layout, found.problems) == ("nnunet", [])
    assert [(e.subject, e.image.name, e.mask and e.mask.name, e.ignored) for e in found.entries] == [
        ("a", "1.nii", "m1.nii", (3,)), ("b", "3.nii", "m2.nii", (3,)),
    ]  # fmt: skip
    cases["b"]["images"] += ["x/2.nii"]  # type: ignore[operator]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"ignore": 3}, "dataset": cases}))
    (tmp_path / "m2.nii").unlink()
    assert mistakes(tmp_path)[:1] == [f"dataset.json: dataset: b: {tmp_path}/m2.nii: {BROKEN}"]
    (tmp_path / "dataset.json").write_text('{"dataset": {"a": {"images": "x/1.nii"}}}')
    assert mistakes(tmp_path)[0].startswith("dataset.json: dataset: ")


def test_all_mistakes_in_nnunet_names_are_said_once(tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b")
    touch(tmp_path, "imagesTr/c_0000.nii.gz", "imagesTr/d.nii.gz", "labelsTr/d.nii.gz", "labelsTr/e.nii.gz")
    assert [problem.partition(";")[0].partition(" /")[0] for problem in mistakes(tmp_path)] == [
        "imagesTr/d.nii.gz: no channel in its name",
        "imagesTr/c_0000.nii.gz: image without mask",
        "labelsTr/e.nii.gz: mask without image",
    ]


# ── BIDS


def test_bids_with_sessions_and_either_kind_of_mask(tmp_path: Path) -> None:
    touch(
        tmp_path, "dataset_description.json", "participants.tsv",
        "sub-01/anat/sub-01_rec-mial_T2w.nii.gz", "sub-01/anat/sub-01_rec-mial_dseg.nii.gz",
        "sub-01/anat/sub-01_rec-mial_T2w.json",
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_mask.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_T2w.nii", "sub-02/ses-2/anat/sub-02_ses-2_desc-brain_mask.nii",
    )  # fmt: skip
    found = look(tmp_path)
    assert (found.layout, found.problems) == ("bids", [])
    assert [(e.subject, e.mask.name if e.mask else "") for e in found.entries] == [
        ("sub-01", "sub-01_rec-mial_dseg.nii.gz"),
        ("sub-02", "sub-02_ses-1_mask.nii.gz"),
        ("sub-02", "sub-02_ses-2_desc-brain_mask.nii"),
    ]


def bids(root: Path, *subjects: int) -> Path:
    for number in subjects:
        touch(root, *(f"sub-{number}/anat/sub-{number}_{kind}.nii.gz" for kind in ("T2w", "dseg")))
    return root


def subjects(root: Path) -> list[str]:
    return [entry.subject for entry in look(root).entries]


@pytest.mark.parametrize("linked", ["sub-3", "sub-3/ses-1", "sub-3/ses-1/anat", "sub-3/ses-1/anat/sub-3_ses-1_T2w.nii"])
def test_bids_links_are_followed(linked: str, tmp_path: Path) -> None:
    touch(bids(tmp_path / "data", 1, 2), *(f"sub-3/ses-1/anat/sub-3_ses-1_{kind}.nii" for kind in ("T2w", "mask")))
    (tmp_path / "store").mkdir()
    (tmp_path / "data" / linked).rename(tmp_path / "store" / "x.nii")
    (tmp_path / "data" / linked).symlink_to(tmp_path / "store" / "x.nii")
    assert subjects(tmp_path / "data") == ["sub-1", "sub-2", "sub-3"]
    assert look(tmp_path / "data").problems == []


@pytest.mark.parametrize("linked", ["sub-3", "sub-3/ses-1", "sub-3/ses-1/anat", "sub-3/anat/sub-3_T2w.nii.gz"])
def test_bids_links_to_nowhere_are_said(linked: str, tmp_path: Path) -> None:
    bids(tmp_path, 1, 2)
    (tmp_path / linked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / linked).symlink_to(tmp_path / "nowhere")
    touch(tmp_path, *(["sub-3/anat/sub-3_dseg.nii.gz"] if linked.endswith("gz") else []))
    (problem,) = mistakes(tmp_path)
    assert problem.startswith(f"{linked}: cannot be read: a broken link")


def test_bids_links_in_a_circle_end(tmp_path: Path) -> None:
    bids(tmp_path, 1, 2)
    (tmp_path / "sub-1" / "ses-1").symlink_to(tmp_path / "sub-1")
    (tmp_path / "sub-2" / "ses-1").symlink_to(tmp_path)
    (tmp_path / "sub-2" / "ses-2").symlink_to("ses-2")
    found = look(tmp_path)
    assert found.problems == [
        f"{tmp_path}/sub-2/ses-2: cannot be read: a broken link (is the data fetched?), or not a file"
    ]
    assert f"{tmp_path}/sub-1/ses-1: a link back to a folder above it; greenseg does not follow it" in found.notes


@pytest.mark.parametrize(
    "orphan",
    ["sub-3/anat/sub-3_dseg.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_mask.nii", "sub-1/anat/sub-1b_run-2_dseg.nii",
     "derivatives/manual/sub-3/anat/sub-3_desc-brain_mask.nii", "derivatives/m/sub-1/ses-2/anat/sub-1_ses-2_dseg.nii"],
)  # fmt: skip
def test_a_bids_mask_without_image_is_said(orphan: str, tmp_path: Path) -> None:
    touch(bids(tmp_path, 1, 2), orphan)
    (problem,) = mistakes(tmp_path)
    folder, _, name = orphan.rpartition("/")
    entities = name.rpartition("_")[0].removesuffix("_desc-brain")
    place = "/".join(folder.split("/")[2:] if folder.startswith("derivatives") else folder.split("/"))
    assert problem == f"{orphan}: mask without image; expected {tmp_path}/{place}/{entities}_T2w.nii.gz"


def test_masks_of_other_bids_images_are_no_orphans(tmp_path: Path) -> None:
    """Masks of T1w images, and those that fMRIPrep makes of all sessions together."""
    touch(
        bids(tmp_path, 1, 2), "sub-1/anat/sub-1_acq-x_T1w.nii", "sub-3/anat/sub-3_T1w.nii", "sub-3/anat/sub-3_mask.nii",
        "sub-4/ses-1/anat/sub-4_ses-1_T2w.nii", "sub-4/ses-1/anat/sub-4_ses-1_dseg.nii",
        "derivatives/fmriprep/sub-4/anat/sub-4_desc-brain_mask.nii",
        "derivatives/fmriprep/sub-4/anat/sub-4_space-MNI_desc-brain_mask.nii",
    )  # fmt: skip
    found = look(tmp_path)
    assert (found.problems, subjects(tmp_path)) == ([], ["sub-1", "sub-2", "sub-4"])
    assert found.notes == ["no T2w image for sub-3"]


def test_bids_without_t2w_says_what_there_is(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_{kind}.nii" for n in (1, 2) for kind in ("T1w", "dseg")))
    touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii")
    (problem,) = look(tmp_path).problems
    assert problem.startswith(f"{tmp_path}: no T2w image in any folder anat, but 2 T1w, 1 FLAIR; ")
    assert "CSV" in problem


def test_many_runs_are_listed_in_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """1,500 runs in one folder took a minute: each image looked at every file."""
    touch(tmp_path, *(f"sub-1/anat/sub-1_run-{n}_{kind}.nii" for n in range(1500) for kind in ("T2w", "dseg")))
    touch(tmp_path, "sub-2/anat/sub-2_T2w.nii", "sub-2/anat/sub-2_dseg.nii")
    start = time.process_time()
    found = look(tmp_path)
    assert time.process_time() - start < 2
    assert (len(found.entries), found.problems) == (1501, [])
    assert [entry.image.name for entry in found.entries[9:11]] == ["sub-1_run-9_T2w.nii", "sub-1_run-10_T2w.nii"]


def test_bids_masks_may_lie_under_derivatives(tmp_path: Path) -> None:
    for subject in ("sub-1", "sub-2"):
        touch(tmp_path, f"{subject}/anat/{subject}_T2w.nii.gz",
              f"derivatives/manual/{subject}/anat/{subject}_desc-brain_mask.nii.gz")  # fmt: skip
    assert all("derivatives" in case.files[0][1].parts for case in scan(tmp_path))


def test_a_bids_image_never_takes_the_mask_of_another(tmp_path: Path) -> None:
    touch(
        tmp_path, "sub-1/anat/sub-1_T2w.nii", "sub-1/anat/sub-1_run-2_T2w.nii", "sub-1/anat/sub-1_run-2_dseg.nii",
        "sub-2/anat/sub-2_T2w.nii", "sub-2/anat/sub-2_dseg.nii", "sub-2/anat/sub-2_mask.nii",
    )  # fmt: skip
    assert [problem.partition(";")[0] for problem in mistakes(tmp_path)] == [
        "sub-1/anat/sub-1_T2w.nii: image without mask",
        "sub-2/anat/sub-2_T2w.nii: several masks (sub-2_dseg.nii, sub-2_mask.nii)",
    ]


# ── CSV


def table(root: Path, text: str) -> Path:
    touch(root, "a.nii", "b.nii", "deep/c.nii", "m.nii", "a b.nii")
    (root / "data.csv").write_text(text, encoding="utf-8")
    return root / "data.csv"


def test_a_csv_names_images_relative_to_itself(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        f"\ufeffMask, image ,subject,split,age\nm.nii,a.nii,x,Train,3\n\n{tmp_path}/m.nii,deep/c.nii,x,train\n"
        'm.nii,"a b.nii",,val\n,b.nii,t,test\n',
    )
    found = look(path)
    assert found.problems == []
    assert [(e.image.name, e.subject, e.split, e.where.rpartition(":")[2]) for e in found.entries] == [
        ("a.nii", "x", "train", "2"), ("c.nii", "x", "train", "4"), ("a b.nii", "a b", "validation", "5"),
        ("b.nii", "t", "test", "6"),
    ]  # fmt: skip
    assert splits(scan(path)) == {"train": ["x"], "validation": ["a b"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["data.csv:1: no column 'image'; columns: image, mask, subject, split, ignore",
              "data.csv:1: no column 'mask'; columns: image, mask, subject, split, ignore"]),
        ("image,mask\n", ["data.csv: no line below the column names"]),
        ("image;mask\na.nii;m.nii\n", ["data.csv:1: columns are separated by ';'; use commas"]),
        ("img,mask\na.nii,m.nii\n", ["data.csv:1: no column 'image'; columns: image, mask, subject, split, ignore",
                                     "data.csv:1: unknown column 'img' (did you mean 'image'?)"]),
        ("image,mask,splt\na.nii,m.nii,train\n", ["data.csv:1: unknown column 'splt' (did you mean 'split'?)"]),
        ("image,mask,split\na.nii,m.nii,trian\nx.nii,y.nii,\n\nb.nii,,train\n,m.nii,\n",
         ["data.csv:2: split 'trian' is not valid (did you mean 'train'?); valid: train, validation, test, or empty",
          "data.csv:3: {}/x.nii: no such file", "data.csv:3: {}/y.nii: no such file",
          "data.csv:5: image without mask", "data.csv:6: names no image"]),
        ("image,mask\na.nii,m.nii\nb.nii,m.nii\na.nii,m.nii\n",
         ["data.csv:4: duplicate; {}/a.nii was listed before ({}/data.csv:2)"]),
        ("image,mask,split\na.nii,m.nii,train\nb.nii,m.nii,\n",
         ["data.csv: a split is named for some subjects, but not for b; name all, or none"]),
        ("image,mask,split\na.nii,m.nii,train\nb.nii,m.nii,train\n",
         ["data.csv: no subject for validation; name both splits, or none"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_csv_have_their_line(text: str, expected: list[str], tmp_path: Path) -> None:
    path = table(tmp_path, text)
    with pytest.raises(UserError) as caught:
        scan(path)
    problems = [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]
    assert problems == [message.replace("{}", str(tmp_path)) for message in expected]


def test_what_is_no_text_is_no_csv(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"image,mask\n\xff\xfe\n")
    with pytest.raises(UserError, match="not readable as CSV"):
        scan(tmp_path / "data.csv")


# ── naming the layout


def test_a_layout_that_is_named_is_not_guessed(tmp_path: Path) -> None:
    add(tmp_path, "a", "b")
    nnunet(tmp_path, "c", "d", "e")
    assert {case.subject for case in scan(tmp_path)} == {"c", "d", "e"}
    assert {case.subject for case in scan(tmp_path, layout="e2mip")} == {"a", "b"}
    with pytest.raises(UserError, match="layout csv needs a CSV file"):
        scan(tmp_path, layout="csv")
    (tmp_path / "cases.txt").write_text("image,mask\nimages/a.nii.gz,masks/a_mask.nii.gz\n")
    assert len(look(tmp_path / "cases.txt", "csv").entries) == 1
    with pytest.raises(UserError, match="is a file"):
        look(tmp_path / "cases.txt", "bids")
    with pytest.raises(UserError, match=r"no images .* in layout bids"):
        scan(tmp_path, layout="bids")


# ── links to nowhere


def link(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/nowhere/x")
    return path


@pytest.mark.parametrize(
    "name",
    ["images/1.2.840.113", "training_data", "validation_data", "testing_data", "testing_data/images"],
)  # fmt: skip
def test_a_broken_link_in_place_of_a_folder_is_named(name: str, tmp_path: Path) -> None:
    add(tmp_path if not name.startswith("testing_data/") else tmp_path / "training_data", "a", "b")
    link(tmp_path / name)
    assert f"{name}: cannot be read: a broken link (is the data fetched?), or not a file" in mistakes(tmp_path)


@pytest.mark.parametrize("name", ["sub-9.1", "sub-1/ses-2.0", "derivatives", "derivatives/masks"])
def test_a_broken_link_in_bids_is_named_once(name: str, tmp_path: Path) -> None:
    bids(tmp_path, 1, 2)
    link(tmp_path / name)
    link(tmp_path / "sub-1/anat/sub-1_T2w.json")  # that a sidecar was not fetched is no matter
    assert mistakes(tmp_path) == [f"{name}: cannot be read: a broken link (is the data fetched?), or not a file"]


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr", "imagesTs"])
def test_a_broken_link_in_nnunet_is_named_once(name: str, tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b")
    if (tmp_path / name).exists():
        (tmp_path / name).rename(tmp_path / "x")
    link(tmp_path / name)
    assert mistakes(tmp_path) == [f"{name}: cannot be read: a broken link (is the data fetched?), or not a file"]


def test_a_broken_file_is_said_once_by_check_too(tmp_path: Path) -> None:
    add(tmp_path, "a", "b", "c")
    for path in [*(tmp_path / "images").iterdir(), *(tmp_path / "masks").iterdir()]:
        path.unlink()
        link(path)
    problems = check(tmp_path).problems
    assert len(problems) == 6
    assert all("broken link" in problem for problem in problems)


# ── two of one


def test_two_masks_of_other_names_are_several(tmp_path: Path) -> None:
    add(tmp_path, "a", "b")
    touch(tmp_path, "masks/a.nii.gz")
    (problem,) = mistakes(tmp_path)
    assert problem == "images/a.nii.gz: several masks (a_mask.nii.gz, a.nii.gz); keep one"


def test_a_csv_names_each_column_once_and_no_image_as_its_own_mask(tmp_path: Path) -> None:
    assert look(table(tmp_path, "image,mask,Mask\na.nii,m.nii,m.nii\n")).problems == [
        f"{tmp_path}/data.csv:1: 2 columns 'mask'; keep one"
    ]
    found = look(table(tmp_path, "image,mask,age,age\na.nii,./a.nii,3,3\nb.nii,m.nii,3,3\n"))
    assert found.problems == [f"{tmp_path}/data.csv:2: {tmp_path}/a.nii: is the image itself, not its mask"]


@pytest.mark.parametrize("labels", ['{"brain": 0, "background": 1}', '{"0": "brain", "1": "background"}'])
def test_the_background_of_nnunet_is_0(labels: str, tmp_path: Path) -> None:
    (problem,) = mistakes(nnunet(tmp_path, "a", "b", description=f'{{"labels": {labels}}}'))
    assert problem.startswith("dataset.json: labels: background is 1")
