"""Who trains and who validates: by hash, by fold, or as a file says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.data.splits import Case, scan, split_csv
from greenseg.errors import UserError
from tests.data.test_layout import add, splits

_SUBJECTS = st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=2, max_size=9, unique=True)


def validating(cases: list[Case]) -> list[str]:
    return splits(cases)["validation"]


@given(names=_SUBJECTS, folds=st.integers(2, 5), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_every_subject_validates_in_exactly_one_fold(
    names: list[str], folds: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = add(tmp_path_factory.mktemp("data"), *names)
    if len(names) < folds:
        with pytest.raises(UserError, match=f"at least {folds} are needed for {folds} folds"):
            scan(root, folds=folds)
        return
    dealt = [scan(root, folds=folds, fold=fold, split_seed=seed) for fold in range(folds)]
    assert sorted(name for cases in dealt for name in validating(cases)) == sorted(names)
    assert all(validating(cases) for cases in dealt)
    assert all(sorted(case.subject for case in cases) == sorted(names) for cases in dealt)


@given(names=st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=30, max_size=40, unique=True))
@settings(deadline=None, max_examples=15)
def test_adding_a_subject_moves_no_other_to_another_fold(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With so many subjects no fold is empty, so that none had to be filled up."""
    *old, _ = names
    root = add(tmp_path_factory.mktemp("data"), *old)
    before = [set(validating(scan(root, folds=2, fold=fold))) for fold in range(2)]
    add(root, *names)
    after = [set(validating(scan(root, folds=2, fold=fold))) for fold in range(2)]
    assert all(b <= a for b, a in zip(before, after, strict=True))


def test_another_split_seed_is_another_split(tmp_path: Path) -> None:
    add(tmp_path, *(f"s{number:02}" for number in range(40)))
    assert validating(scan(tmp_path)) == validating(scan(tmp_path, split_seed=0))
    assert len({tuple(validating(scan(tmp_path, split_seed=seed))) for seed in range(4)}) == 4


def test_folds_go_over_the_splits_that_the_data_names(tmp_path: Path) -> None:
    add(tmp_path / "training_data", *"abcdef")
    add(tmp_path / "validation_data", *"gh")
    folds = [validating(scan(tmp_path, folds=4, fold=fold)) for fold in range(4)]
    assert sorted(name for fold in folds for name in fold) == list("abcdefgh")


@pytest.mark.parametrize("folds", [0, 3])
def test_a_written_split_is_a_data_set_with_that_split(folds: int, tmp_path: Path) -> None:
    add(tmp_path, "a, with comma", 'b"quoted"', "c_slice1", "c_slice2", "ü", "e", "f")
    cases = scan(tmp_path, folds=folds, fold=min(folds, 1), split_seed=3)
    (tmp_path / "split.csv").write_text(split_csv(cases), encoding="utf-8")
    assert scan(tmp_path / "split.csv") == cases
