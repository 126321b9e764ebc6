"""A file that names the split of every subject: the setting split_from."""

import shutil
from pathlib import Path

import pytest

from greenseg.data.content import Contents
from greenseg.data.splits import cases_of, split_csv
from greenseg.errors import UserError
from greenseg.machine.preflight import data_problems
from greenseg.settings import Settings, repeated_anywhere, trained_anywhere
from greenseg.sweep.file import read_sweep
from tests.data.datasets import settings_for
from tests.data.test_layout import add, nnunet, touch
from tests.data.test_test_part import divided, mistakes, write_pairs


def assign(folder: Path, text: str) -> str:
    (folder / "s.csv").write_text(text, encoding="utf-8")
    return str(folder / "s.csv")


def test_it_overrides_every_other_rule(tmp_path: Path) -> None:
    data = tmp_path / "data"
    add(data / "training_data", "a", "b")
    add(data / "validation_data", "c")
    add(data / "test_data", "d")
    file = assign(tmp_path, "\ufeffage, Split ,SUBJECT\n3,Test,a\n\n4,val,b\n5,train,c\n6,Train,d\n6,train,d\n")
    for share in (0.1, 0.9):
        assert divided(data, split_from=file, validation_share=share) == {
            "train": ["c", "d"], "validation": ["b"], "test": ["a"],
        }  # fmt: skip


def test_a_test_part_is_not_needed(tmp_path: Path) -> None:
    file = assign(tmp_path, "subject,split\na,train\nb,validation\n")
    assert divided(add(tmp_path / "data", "a", "b"), split_from=file)["test"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1: no column 'subject'", "1: no column 'split'"]),
        ("subjekt,split\n", ["1: no column 'subject' (did you mean 'subjekt'?)"]),
        ("subject,split,split\n", ["1: 2 columns 'split'; keep one"]),
        ("subject,split\n", [" no subject for training", " no subject for validation"]),
        ("subject,split\nanna,trian\nbert,train\ncarl,val\n",
         ["2: split 'trian' is not valid (did you mean 'train'?); valid: train, validation, test"]),
        ("subject,split\nanna,train\nbert,val\ncarl,\n",
         ["4: split '' is not valid; valid: train, validation, test"]),
        ("subject,split\nanna,train\nbert,val\ncarl,test\n,test\n", ["5: names no subject"]),
        ("subject,split\nanna,train\nbert,val\ncarll,test\n",
         ["4: no subject 'carll' in {} (did you mean 'carl'?)", " no line for carl of {}"]),
        ("subject,split\nanna,train\nbert,val\ncarl,test\nzzz,test\n",
         ["5: no subject 'zzz' in {}; its subjects are anna, bert, carl"]),
        ("subject,split\nanna,train\n", [" no subject for validation", " no line for bert, carl of {}"]),
        ("subject,split\nanna,train\nbert,val\ncarl,test\nanna,val\n",
         ["5: subject 'anna' is in two splits, validation here and train in line 2"]),
        ("subject,split\nanna,train\nbert,train\ncarl,test\n", [" no subject for validation"]),
        ("subject,split\nanna,trane\nbert,val\ncarl,val\nbert,test\nx,test\n",
         ["2: split 'trane' is not valid", "5: subject 'bert' is in two splits", "6: no subject 'x' in {}"]),
    ],
)  # fmt: skip
def test_all_its_mistakes_are_named_with_their_line(text: str, expected: list[str], tmp_path: Path) -> None:
    data = add(tmp_path / "data", "anna", "bert", "carl")
    file = assign(tmp_path, text)
    problems = mistakes(data, split_from=file)
    starts = [f"{file}:{said.format(data)}" for said in expected]
    assert len(problems) == len(starts), problems
    assert [problem[: len(start)] for problem, start in zip(problems, starts, strict=True)] == starts
    assert data_problems([Settings.of({"data": str(data), "split_from": file})]) == problems, "before a run starts"


def test_its_mistakes_are_named_with_those_of_the_data(tmp_path: Path) -> None:
    data = add(tmp_path / "data", "a", "b")
    touch(data, "images/c.nii")
    file = assign(tmp_path, "subject,split\na,trian\nb,val\n")
    first, second = mistakes(data, split_from=file)
    assert "c.nii: image without mask" in first
    assert second.startswith(f"{file}:2: split 'trian'")


@pytest.mark.parametrize("name", ["gone.csv", "data"])
def test_a_file_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    data = add(tmp_path / "data", "a", "b")
    (problem,) = mistakes(data, split_from=str(tmp_path / name))
    assert problem.startswith(f"{tmp_path / name}: ")
    assert "--split-from needs a CSV file" in problem


def test_a_subject_without_mask_can_only_be_test(tmp_path: Path) -> None:
    data = nnunet(tmp_path / "data", "a", "b")
    touch(data, "imagesTs/c_0000.nii.gz")
    named = "subject,split\na,train\nb,val\nc,{}\n"
    assert divided(data, split_from=assign(tmp_path, named.format("test")))["test"] == []
    (problem,) = mistakes(data, split_from=assign(tmp_path, named.format("train")))
    assert f"s.csv:4: subject 'c' of {data} has no mask" in problem


@pytest.mark.parametrize("other", [{"folds": 3}, {"test_share": 0.2}])
def test_it_does_not_go_with_other_rules(other: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Settings.of({"split_from": "s.csv"} | other)
    (problem,) = caught.value.problems
    assert problem.startswith("split_from: s.csv ")
    assert f"{next(iter(other))}: " in problem


def test_a_run_is_known_by_its_split_and_not_by_the_path_of_the_file(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", *"abcd")
    file = Path(assign(tmp_path, "subject,split\na,train\nb,val\nc,train\nd,test\n"))
    one = settings_for(data, split_from=str(file))
    other = settings_for(data, split_from=shutil.copy(file, str(tmp_path / "copy.csv")))
    assert trained_anywhere(one.resolved()) == trained_anywhere(other.resolved()), "like the setting data"
    assert repeated_anywhere(one.resolved()) == repeated_anywhere(other.resolved())
    contents = Contents()
    first, second = contents.of(one), contents.of(other)
    assert first is not None
    assert first == second
    file.write_text("subject,split\na,val\nb,train\nc,train\nd,test\n")
    changed = Contents().of(one)
    assert changed is not None
    assert changed.difference(first) == "moved to validation: a; moved to training: b"


def test_the_split_of_a_run_is_such_a_file(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data", *"abcd")
    settings = settings_for(data, folds=2, fold=1)
    (tmp_path / "split.csv").write_text(split_csv(cases_of(settings, data)))
    again = settings_for(data, split_from=str(tmp_path / "split.csv"))
    assert cases_of(again, data) == cases_of(settings, data)
    assert Contents().of(again) == Contents().of(settings)


def test_a_sweep_names_it_like_data(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nbase: {data: d/x/../y}\ngrid: {split_from: [./a.csv, b/../a2.csv]}\n")
    runs = read_sweep(file).runs
    assert [(run.data, run.split_from) for run in runs] == [("d/y", "a.csv"), ("d/y", "a2.csv")]
