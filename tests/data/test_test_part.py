"""The test part: who is in it, and that a run neither trains on it nor changes with it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from greenseg.data import splits
from greenseg.data.check import check
from greenseg.data.content import Content, Contents, content_of_test
from greenseg.data.layout import look
from greenseg.data.phantom import write_phantom
from greenseg.data.splits import Case, cases_of, read_split, split_csv
from greenseg.errors import UserError
from greenseg.settings import Settings
from tests.conftest import Command
from tests.data.datasets import grey, labelled, settings_for, write
from tests.data.test_layout import add, nnunet, touch


def in_test_part(root: Path, **changes: Any) -> list[str]:
    return [case.subject for case in splits.test_cases_of(Settings.of({"data": str(root)} | changes), root)]


def divided(root: Path, **changes: Any) -> dict[str, list[str]]:
    """Split → subjects."""
    settings = Settings.of({"data": str(root)} | changes)
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for case in [*cases_of(settings, root), *splits.test_cases_of(settings, root)]:
        found[case.split].append(case.subject)
    return found


def mistakes(root: Path, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        divided(root, **changes)
    return caught.value.problems


def write_pairs(root: Path, *subjects: str, first: int = 0, empty: bool = False) -> Path:
    """Small readable images with masks, directly in the folder."""
    for number, subject in enumerate(subjects, first):
        write(root / "images" / f"{subject}.nii.gz", grey(number))
        write(root / "masks" / f"{subject}_mask.nii.gz", labelled() * (not empty))
    return root


# ── named by the data


@pytest.mark.parametrize("folder", ["test_data", "testing_data", "test_volume"])
def test_e2mip_names_it_by_a_folder_with_masks(folder: str, tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a", "b", "c")
    add(tmp_path / folder, "d_slice1", "d_slice2", "e")
    assert in_test_part(tmp_path) == ["d", "e"]
    found = divided(tmp_path)
    assert sorted(found["train"] + found["validation"]) == ["a", "b", "c"]
    touch(tmp_path, f"{folder}/images/f.nii", f"{folder}/masks/g_mask.nii")
    assert [problem.partition(": ")[2].partition(";")[0] for problem in mistakes(tmp_path)] == [
        "image without mask",
        "mask without image",
    ]


@pytest.mark.parametrize("folder", ["test_data", "testing_data", "test_volume"])
@pytest.mark.parametrize("inner", ["", "images/"])
def test_without_masks_the_images_of_e2mip_can_only_be_predicted(folder: str, inner: str, tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a", "b")
    touch(tmp_path, f"{folder}/{inner}c.nii.gz")
    (tmp_path / folder / "masks").mkdir()
    assert [(e.subject, e.mask) for e in look(tmp_path).entries if e.split == "test"] == [("c", None)]
    assert in_test_part(tmp_path) == []


def test_nnunet_names_it_by_labels_of_imagests(tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", "c")
    touch(tmp_path, "imagesTs/d_0000.nii.gz", "imagesTs/e_0000.nii.gz", "labelsTs/d.nii.gz", "labelsTs/f.nii.gz")
    first, second = mistakes(tmp_path)
    assert first.startswith(f"{tmp_path}/imagesTs/e_0000.nii.gz: image without mask; expected {tmp_path}/labelsTs/e")
    assert second.startswith(f"{tmp_path}/labelsTs/f.nii.gz: mask without image; expected {tmp_path}/imagesTs/f_0000")
    touch(tmp_path, "labelsTs/e.nii.gz", "imagesTs/f_0000.nii.gz")
    assert in_test_part(tmp_path) == ["d", "e", "f"]
    touch(tmp_path, "imagesTs/f_0001.nii.gz")  # a channel that training does not have
    assert in_test_part(tmp_path) == ["d", "e", "f"]
    for case in "abc":
        touch(tmp_path, f"imagesTr/{case}_0001.nii.gz")
    assert ["case d lacks channel 1" in problem for problem in mistakes(tmp_path)] == [True, False]


def test_a_csv_names_it_by_rows_with_masks(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}.nii" for name in ("a", "b", "c", "d", "m")))
    table = tmp_path / "data.csv"
    table.write_text("image,mask,split\na.nii,m.nii,train\nb.nii,m.nii,val\nc.nii,m.nii,Test\nd.nii,,test\n")
    assert divided(table) == {"train": ["a"], "validation": ["b"], "test": ["c"]}


def test_a_subject_of_the_test_part_is_in_no_other_split(tmp_path: Path) -> None:
    nnunet(tmp_path, "a", "b", "c")
    touch(tmp_path, "imagesTs/a_0000.nii.gz", "labelsTs/a.nii.gz")
    (problem,) = mistakes(tmp_path)
    assert "subject 'a' is in two splits, test here and training or validation in" in problem


def test_it_is_in_no_fold(tmp_path: Path) -> None:
    add(tmp_path / "training_data", *"abcdef")
    before = [divided(tmp_path, folds=3, fold=fold) for fold in range(3)]
    add(tmp_path / "test_data", *"xyz")
    assert [divided(tmp_path, folds=3, fold=fold) for fold in range(3)] == [
        found | {"test": ["x", "y", "z"]} for found in before
    ]


def test_too_few_subjects_besides_it_are_named(tmp_path: Path) -> None:
    add(tmp_path / "training_data", "a")
    add(tmp_path / "test_data", "b", "c")
    (problem,) = mistakes(tmp_path)
    assert "one subject only besides the test part; at least 2" in problem


# ── nothing about training changes


@pytest.mark.parametrize("layout", ["e2mip", "nnunet"])
def test_adding_a_test_part_changes_neither_content_nor_slices(layout: str, tmp_path: Path) -> None:
    def pair(part: str, name: str, number: int) -> None:
        folder = {"train": "training_data", "test": "test_data"}[part]
        images = (
            f"images{'Tr' if part == 'train' else 'Ts'}/{name}_0000"
            if layout == "nnunet"
            else f"{folder}/images/{name}"
        )
        masks = (
            f"labels{'Tr' if part == 'train' else 'Ts'}/{name}" if layout == "nnunet" else f"{folder}/masks/{name}_mask"
        )
        write(tmp_path / f"{images}.nii.gz", grey(number))
        write(tmp_path / f"{masks}.nii.gz", labelled())

    for number, name in enumerate("abc"):
        pair("train", name, number)
    settings = settings_for(tmp_path)
    cases = cases_of(settings, tmp_path)
    before = Content.of(cases)
    assert content_of_test(settings, tmp_path) is None

    for number, name in enumerate("ad", 10):  # layout e2mip: the same name as in training, but another image
        pair("test", name if layout == "e2mip" else f"{name}x", number)
    after = Contents().of(settings)
    assert after is not None
    assert cases_of(settings, tmp_path) == cases
    assert (after.digest, after.slices_key(settings)) == (before.digest, before.slices_key(settings))
    first = content_of_test(settings, tmp_path)
    assert first is not None
    assert first.of_split("test") == (["a (test)", "d"] if layout == "e2mip" else ["ax", "dx"])

    pair("test", "e", 20)
    second = content_of_test(settings, tmp_path)
    assert second is not None
    assert second.digest != first.digest
    whole = split_csv([*cases, *splits.test_cases_of(settings, tmp_path)])
    assert whole.startswith(split_csv(cases))
    (tmp_path / "split.csv").write_text(whole)
    assert Content.of(read_split(tmp_path / "split.csv")) == before


def test_a_run_writes_the_test_part_to_its_split(greenseg: Command, tmp_path: Path) -> None:
    data = write_phantom(tmp_path / "data", 3, 0, test=1)
    assert len(data) == 4
    options = ["--model", "enet", "--image-size", "32", "--spacing", "8", "--epochs", "1", "--accelerator", "cpu"]
    result = greenseg("train", "--data", "data", "--out", "runs", *options)
    assert result.returncode == 0, result.stderr
    (written,) = (tmp_path / "runs").rglob("split.csv")
    assert divided(written) == divided(tmp_path / "data")
    assert len(divided(written)["test"]) == 1


# ── test_share


_NAMES = st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=3, max_size=20, unique=True)


@given(names=_NAMES, share=st.floats(0.01, 0.99), seed=st.integers(0, 2))
@hypothesis_settings(deadline=None, max_examples=40)
def test_a_share_is_held_out_before_the_rest_is_divided(
    names: list[str], share: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = add(tmp_path_factory.mktemp("data"), *names)
    found = divided(root, test_share=share, split_seed=seed)
    assert all(found.values())
    assert sorted(name for of_split in found.values() for name in of_split) == sorted(names)
    assert divided(root, test_share=share, split_seed=seed) == found
    rest = add(tmp_path_factory.mktemp("rest"), *found["train"], *found["validation"])
    assert divided(rest, split_seed=seed) == found | {"test": []}
    if len(names) > 3:
        folds = [divided(root, test_share=share, split_seed=seed, folds=2, fold=fold) for fold in range(2)]
        assert {tuple(fold["test"]) for fold in folds} == {tuple(found["test"])}
        assert sorted(folds[0]["validation"] + folds[1]["validation"]) == sorted(found["train"] + found["validation"])


@given(names=_NAMES, share=st.floats(0.1, 0.9))
@hypothesis_settings(deadline=None, max_examples=40)
def test_adding_a_subject_moves_none_into_or_out_of_the_share(
    names: list[str], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    *old, _ = names
    assume(len(old) > 4)
    root = tmp_path_factory.mktemp("data")
    before = divided(add(root, *old), test_share=share)
    # With so few subjects in a part, some may be there because it would be empty.
    assume(len(before["test"]) > 1 and len(before["train"] + before["validation"]) > 2)
    after = divided(add(root, *names), test_share=share)
    assert set(before["test"]) <= set(after["test"])
    assert set(before["train"] + before["validation"]) <= set(after["train"] + after["validation"])


def test_the_share_is_independent_of_validation_and_stays_what_it_was(tmp_path: Path) -> None:
    """Where it changes, results on somebody's test part no longer compare."""
    root = add(tmp_path, *(f"s{number:02}" for number in range(60)))
    found = divided(root, test_share=0.2)
    validating = set(divided(root)["validation"])
    assert 6 <= len(found["test"]) <= 18
    assert 0 < len(validating & set(found["test"])) < len(found["test"])
    assert set(found["validation"]) == validating - set(found["test"]), "nobody moves between the other splits"
    assert found["test"][:3] == ["s04", "s07", "s08"]


@pytest.mark.parametrize(
    ("files", "changes", "said"),
    [
        (
            {"": "ab"},
            {},
            "2 subjects; at least 3 subjects are needed, for training, for validation and for test_share 0.5",
        ),
        ({"": "abc"}, {"folds": 3}, "3 subjects; at least 4 are needed for 3 folds and for test_share 0.5"),
        ({"training_data": "abc", "test_data": "de"}, {}, "test_share 0.5, but the data set names a test part (d, e)"),
        ({"training_data": "abc", "validation_data": "de"}, {}, "test_share 0.5, but the data set names its splits"),
    ],
)
def test_a_share_that_contradicts_the_data_is_named(
    files: dict[str, str], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    for folder, subjects in files.items():
        add(tmp_path / folder, *subjects)
    (problem,) = mistakes(tmp_path, test_share=0.5, **changes)
    assert problem.startswith(f"{tmp_path}: {said}")


def test_folds_over_named_splits_leave_the_share_out(tmp_path: Path) -> None:
    add(tmp_path / "training_data", *"abcdef")
    add(tmp_path / "validation_data", *"gh")
    folds = [divided(tmp_path, test_share=0.3, folds=3, fold=fold) for fold in range(3)]
    (test,) = {tuple(found["test"]) for found in folds}
    assert sorted([name for found in folds for name in found["validation"]] + list(test)) == list("abcdefgh")


@pytest.mark.parametrize("changes", [{"test_share": 0.3}, {"test_share": 0.3, "folds": 3, "fold": 1}])
def test_a_written_split_is_a_data_set_with_that_test_part(changes: dict[str, Any], tmp_path: Path) -> None:
    root = add(tmp_path / "data", "a, with comma", 'b"quoted"', "c_slice1", "c_slice2", "ü", "e", "f", "g")
    settings = Settings.of({"data": str(root)} | changes)
    cases: list[Case] = [*cases_of(settings, root), *splits.test_cases_of(settings, root)]
    file = tmp_path / "split.csv"
    file.write_text(split_csv(cases), encoding="utf-8")
    again = Settings.of({"data": str(file)})
    assert [*cases_of(again, file), *splits.test_cases_of(again, file)] == cases
    assert divided(root, split_from=str(file)) == divided(root, **changes)


# ── greenseg data check


def test_data_check_shows_and_checks_it(greenseg: Command, tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", 2, 0, test=1)
    result = greenseg("data", "check", "data")
    assert (result.returncode, result.stderr) == (0, "")
    title = " ".join(result.stdout.split()).partition(" layout")[0]
    assert title.startswith("3 cases (1 train, 1 validation, 1 test), ")
    assert title.endswith(" test),"), "its slices"

    (image,) = (tmp_path / "data" / "test_data" / "images").iterdir()
    image.write_bytes(b"no image")
    touch(tmp_path / "data", "test_data/masks/other_mask.nii.gz")
    result = greenseg("data", "check", "data")
    assert result.returncode == 2
    assert f"{image.name}: is neither gzip nor a known image" in result.stderr
    assert "other_mask.nii.gz: mask without image" in result.stderr


def test_data_check_says_what_the_test_part_lacks_without_an_error(tmp_path: Path) -> None:
    write_pairs(tmp_path / "training_data", *"abc")
    write_pairs(tmp_path / "test_data", "d", first=10, empty=True)
    write(tmp_path / "testing_data" / "e.nii.gz", grey(20))
    found = check(tmp_path)
    assert found.problems == []
    assert [note.partition(";")[0] for note in found.notes if "test" in note] == [
        f"{tmp_path}: no foreground in any test slice (d)",
        "no mask for e: for prediction, not of the test part",
    ]
    assert {case.subject: case.split for case in found.cases if case.subject in "de"} == {"d": "test", "e": "test"}


def test_data_check_names_the_same_pixels_in_test_and_training(tmp_path: Path) -> None:
    write_pairs(tmp_path / "training_data", *"abc")
    write_pairs(tmp_path / "test_data", "d", first=1)
    (problem,) = check(tmp_path).problems
    assert "test_data/images/d.nii.gz: duplicate; has the same pixels" in problem


def test_data_check_takes_the_rules_of_a_run(greenseg: Command, tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", *"abcd")
    (tmp_path / "s.csv").write_text("subject,split\na,test\nb,train\nc,val\nd,train\n")
    named = greenseg("data", "check", root, "--split-from", "s.csv")
    assert (named.returncode, named.stderr) == (0, "")
    assert "(2 train, 1 validation, 1 test)" in " ".join(named.stdout.split())
    (tmp_path / "s.csv").write_text("subject,split\na,test\nb,train\nc,val\n")
    wrong = greenseg("data", "check", root, "--split-from", "s.csv")
    assert (wrong.returncode, wrong.stderr.count("error: ")) == (2, 1)
    assert "no line for d" in wrong.stderr
    assert "1 test" in greenseg("data", "check", root, "--test-share", "0.1").stdout
