"""What users name, and how they are told that it is not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.report.columns import column_names
from greenseg.report.results import Result
from greenseg.report.select import Query, where
from tests.report.comparisons import compared, results
from tests.runs import Json, energy, record


def runs() -> list[Json]:
    return [
        record(
            {"model": f"{encoder}-unet", "precision": precision, "lr": lr, "compile": lr > 0.01},
            dice=0.7 + 10 * lr,
            total=energy(1, cpu_rapl=1000 * lr),
        )
        for encoder in ("resnet18", "mobilenet")
        for precision in ("32-true", "16-mixed")
        for lr in (0.001, 0.02)
    ] + [record({"model": "resnet50-fpn"}, "failed", error="OutOfMemoryError")]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], 9),
        (["encoder=resnet18"], 4),
        (["encoder=mobilenet"], 4),  # an alias of mobilenet_v2
        (["encoder=resnet18,mobilenet_v2"], 8),
        (["model=resnet18-unet"], 4),
        (["model=mobilenet-unet"], 4),
        (["encoder!=resnet18"], 5),
        (["encoder=resnet18", "precision=16-mixed"], 2),
        (["lr=1e-3"], 4),
        (["lr = 0.001"], 4),
        (["lr>0.001"], 5),
        (["lr>=0.001"], 9),
        (["lr<0.003"], 4),
        (["compile=true"], 4),
        (["compile=no"], 5),
        (["dice>0.8"], 4),
        (["total<=1"], 4),
        (["status=failed"], 1),
        (["status!=failed"], 8),
        (["batch-size=8"], 9),
    ],
)
def test_conditions(conditions: list[str], expected: int) -> None:
    assert len(where(results(*runs()), conditions)) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("labels=1,2", 2),  # the value, not 1 or 2
        ("labels=1,2,3", 1),
        ("labels=3,1,2", 3),
        ("labels=3,1", 2),
        ("labels=1,2,1,2,3", 3),
        ("labels!=1,2", 4),
        ("labels=", 1),
        ("data=/my data/a=b, c", 2),
        ("lr=1e-3", 6), ("lr=.001", 6), ("lr=0.0010", 6), ("epochs=30.0", 6), ("epochs=3e1", 6),
        ("compile=FALSE", 6),
    ],
)  # fmt: skip
def test_values_are_what_a_person_reads(condition: str, expected: int) -> None:
    labels = ["", "1", "1,2", "1,2", "3", "1,2,3"]
    made = [record({"labels": text, "lr": 0.001, "epochs": 30, "spacing": 1.0 + number / 10,
                    "data": "/my data/a=b, c" if number < 2 else "x"})
            for number, text in enumerate(labels)]  # fmt: skip
    assert len(where(results(*made), [condition])) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["precison=16-mixed"], ["no 'precison' (did you mean 'precision'?)"]),
        (["precision=16-mixd"], ["no run has precision '16-mixd' (did you mean '16-mixed'?)", "32-true"]),
        (["precision"], ["'precision' is not a condition such as"]),
        (["dice>high"], ["'high' is not a number"]),
        (["encoder>resnet"], ["encoder is not a number"]),
        (["status>failed"], ["status is not a number"]),
        (["dice>2"], ["no configuration matches"]),
        (["precison=1", "encoder=vgg", "lr>x"], ["'precison'", "'vgg'", "'x' is not a number"]),
        (["encoder="], ["no run has encoder ''"]),
    ],
)
def test_mistakes_in_conditions(conditions: list[str], expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        where(results(*runs()), conditions)
    assert all(text in str(caught.value) for text in expected), str(caught.value)
    assert all(problem.startswith("--where") for problem in caught.value.problems)


@given(st.text(max_size=12))
def test_any_condition_is_met_or_explained(condition: str) -> None:
    try:
        found = where(_RESULTS, [condition])
    except UserError:
        return
    assert found


_RESULTS: list[Result] = results(*runs())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"quality": "dicee"}, ["--quality: no 'dicee' (did you mean 'dice'?)", "valid: dice, iou, hd95"]),
        ({"energy": "gpu"}, ["--energy gpu: no run has it; available: total, own, cpu, per-epoch"]),
        ({"energy": "inference"}, ["--energy inference: no run has it"]),
        ({"energy": "inferring"}, ["--energy: no 'inferring'", "to-dice"]),
        ({"third": "memory"}, ["--and: no 'memory' (did you mean 'peak-memory'?)", "params, peak-memory, seconds"]),
        ({"baseline": "precision"}, ["--baseline: 'precision' is not key=value"]),
        ({"baseline": "precision>1"}, ["--baseline: 'precision>1' is not key=value"]),
        ({"baseline": "precision=64-true"}, ["--baseline: no run has precision '64-true'"]),
        ({"baseline": "encoder=resnet50"}, ["none of its runs has finished"]),
        ({"baseline": "encoder=resnet50,precision=16-mixed"}, ["no configuration matches all of it"]),
        ({"baseline": "precision=32-true,16-mixd"}, ["--baseline: '16-mixd' is not key=value"]),
        ({"baseline": "precision=32-true,lrr=1"}, ["--baseline: no 'lrr' (did you mean 'lr'?)"]),
        ({"quality": "x", "energy": "y", "where": ("z=1",)}, ["--quality: no 'x'", "--energy: no 'y'", "no 'z'"]),
    ],
)
def test_mistakes_in_what_is_compared(options: dict[str, str], expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compared(*runs(), **options)
    assert all(text in str(caught.value) for text in expected), str(caught.value)


def test_a_baseline_whose_value_holds_commas() -> None:
    made = [record({"labels": labels, "lr": lr}, dice=0.7 + lr) for labels in ("1,2", "3") for lr in (0.001, 0.02)]
    found = compared(*made, baseline="labels=1,2,lr=1e-3").baseline
    assert found
    assert (found.settings["labels"], found.settings["lr"]) == ("1,2", 0.001)


def test_values_with_commas_are_listed_in_quotes() -> None:
    made = [record({"labels": labels}) for labels in ("", "1,2", "3")]
    with pytest.raises(UserError, match=r"no run has labels '2'; available: '', '1,2', 3"):
        where(results(*made), ["labels=2"])


@pytest.mark.parametrize("sort", ["dice", "-total", "saved", "-saved", "lr", "-lr"])
def test_best_first_or_worst_first(sort: str) -> None:
    query = Query(sort=sort)
    found = [row.result for row in query.rows(query.compare(results(*runs())))]
    if "lr" not in sort:
        assert found.pop().status == "failed: OutOfMemoryError", "what has no figure comes last, either way"
    rates = [float(result.settings["lr"]) for result in found]
    assert len(rates) >= 8
    assert rates == sorted(rates, reverse=sort in ("dice", "-total", "-saved", "-lr"))


def test_every_column_sorts_and_is_a_column() -> None:
    comparison = compared(*runs())
    for name in column_names(comparison):
        assert len(Query(sort=name).rows(comparison)) == len(Query(sort=f"-{name}").rows(comparison)) == 9
    assert Query(columns=",".join(column_names(comparison))).names(comparison) == column_names(comparison)


def test_columns_and_their_mistakes() -> None:
    comparison = compared(*runs())
    assert Query(columns="encoder, per_epoch,batch-size").names(comparison) == ["encoder", "per-epoch", "batch_size"]
    with pytest.raises(UserError) as caught:
        Query(columns="dice,encodr,jouls").names(comparison)
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError, match="--sort: no 'dise'"):
        Query(sort="dise").rows(comparison)


def test_the_front_only_and_the_first_ones_only() -> None:
    comparison = compared(*runs())
    front = Query(front_only=True).rows(comparison)
    assert front == [row for row in comparison.rows if row.on_front]
    assert Query(top=2, sort="lr").rows(comparison) == Query(sort="lr").rows(comparison)[:2]
