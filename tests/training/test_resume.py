"""A run that goes on after it was stopped ends, bit for bit, as if nobody had disturbed it."""

import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from greenseg.energy import Energy, EnergyMeter
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Epoch
from greenseg.settings import Settings, choices
from greenseg.training import events, probe
from greenseg.training.run import Interrupted, train
from tests.runs import append, lines_of, recorded

LR = {"sgd": 0.1, "lion": 3e-3, "muon": 0.02, "sophia": 0.5, "schedule-free-adamw": 0.01}
QUALITY = ("epoch", "train_loss", "dice", "iou", "volume_dice")
METRICS = ("epochs", "dice", "iou", "volume_dice", "best_epoch", "last_dice", "hd95", "volume_hd95")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    monkeypatch.setenv(events.THREADS, "1")  # for networks as small as these, more of them only wait for each other
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)


def settings_of(phantom: Path, **values: Any) -> Settings:
    base = {
        "model": "contextnet", "width": 0.25, "data": str(phantom), "image_size": 32, "spacing": 8, "epochs": 3,
        "accelerator": "cpu", "batch_size": 64, "augment": "none", "lr": 0.01,
    }  # fmt: skip
    return Settings.of(base | values)


def train_in(folder: Path, settings: Settings) -> RunDirectory:
    run = RunDirectory(folder)
    run.create(settings)
    train(run, settings, EnergyMeter(), rank=0)
    return run


class Photographer:
    """Copies the directory of a run at the moments at which a power cut would leave it in another state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.copies: dict[str, Path] = {}
        self._folder, self._epoch, self._run = folder, 0, Path()
        append, replace = RunDirectory.append_epoch, Path.replace

        def append_and_copy(run: RunDirectory, line: Epoch) -> None:
            append(run, line)
            self._run, self._epoch = run.path, line.epoch
            self._copy("line")

        def replace_and_copy(path: Path, target: Any) -> Path:
            result = replace(path, target)
            if Path(target).suffix == ".ckpt":
                self._copy(Path(target).name)
            return result

        monkeypatch.setattr(RunDirectory, "append_epoch", append_and_copy)
        monkeypatch.setattr(Path, "replace", replace_and_copy)

    def _copy(self, moment: str) -> None:
        name = f"epoch {self._epoch} {moment}"
        self.copies[name] = Path(shutil.copytree(self._run, self._folder / name.replace(" ", "_")))


Undisturbed = Callable[[Settings], tuple[RunDirectory, dict[str, Path]]]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Undisturbed:
    """Trains a run; returns it, and copies of its directory at every moment at which it may be killed."""

    def run(settings: Settings) -> tuple[RunDirectory, dict[str, Path]]:
        with pytest.MonkeyPatch.context() as patch:
            photographer = Photographer(patch, tmp_path / "copies")
            whole = train_in(tmp_path / "whole", settings)
        return whole, photographer.copies

    return run


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two nested values differ in a single bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = [f"{where}: {set(one) ^ set(other)}"] if set(one) != set(other) else []
        for key in one.keys() & other.keys():
            found += differences(one[key], other[key], f"{where}/{key}")
        return found
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for i, pair in pairs for text in differences(*pair, f"{where}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other or (one != one and other != other) else [f"{where}: {one} {other}"]


def outcome(run: RunDirectory) -> dict[str, Any]:
    """All that a run leaves behind but its joules and seconds; of an epoch that was repeated, the last time counts."""
    record = recorded(run)
    assert record["status"] == "finished"
    last = torch.load(run.last_checkpoint, weights_only=True)
    del last["callbacks"]["Checkpoints"]["run"]
    lines = {line["epoch"]: [line[name] for name in QUALITY] for line in lines_of(run)}
    return {
        "epochs": [lines[epoch] for epoch in sorted(lines)],
        "metrics": {name: record["metrics"].get(name) for name in METRICS},
        "validation": record.get("validation"),
        "ran": record["ran"],
        "best": torch.load(run.best_checkpoint, weights_only=True)["state_dict"],
        **{name: last[name] for name in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")},
        "callbacks": last["callbacks"],
    }


def different(whole: RunDirectory, resumed: RunDirectory) -> list[str]:
    """What the outcomes of two runs differ in, by a single bit."""
    return differences(outcome(whole), outcome(resumed))


OPTIMIZERS = [name for name in choices("optimizer") if name != "adamw-8bit"]
CASES: dict[str, dict[str, Any]] = {
    **{
        f"optimizer={name}": {"optimizer": name, "lr": LR.get(name, 0.01)}
        | ({"schedule": "constant"} if name == "schedule-free-adamw" else {})
        for name in OPTIMIZERS
    },
    **{f"schedule={name}": {"schedule": name} for name in choices("schedule")},
    "early_stopping": {"early_stopping": 2},
    "freeze_encoder": {"freeze_encoder": 2, "model": "mobilenetv3-tiny-unet", "width": 1.0},
    "accumulate": {"accumulate": 2},
    "gradient_clip": {"gradient_clip": 0.1},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "drop_empty_slices": {"drop_empty_slices": 0.5},
    "augment=strong": {"augment": "strong"},
    "batch_size=auto": {"batch_size": "auto"},
    "lr=auto": {"lr": "auto"},
    "workers=auto": {"workers": "auto"},
    "workers=1": {"workers": 1},  # it loads ahead
}


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_run_ends_as_if_undisturbed(
    name: str, phantom: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_METER_SECONDS", 0.1)
    settings = settings_of(phantom, **({"batch_size": 32} | CASES[name]))
    whole, copies = undisturbed(settings)
    assert different(whole, train_in(copies["epoch 1 last.ckpt"], settings)) == []


@pytest.mark.parametrize("values", [{}, {"schedule": "plateau", "lr": 1e-6}, {"early_stopping": 3, "lr": 1e-9}])
def test_a_paused_run_ends_as_if_undisturbed(
    values: dict[str, Any], phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(phantom, **{"epochs": 4} | values)
    whole = train_in(tmp_path / "whole", settings)
    for until in (1, 3):
        monkeypatch.setenv(events.UNTIL, str(until))
        paused = train_in(tmp_path / "paused", settings)
        record = recorded(paused)
        assert (record["status"], record["metrics"]["epochs"]) == ("paused", until)
        assert "validation" not in record
    monkeypatch.setenv(events.UNTIL, "4")
    assert different(whole, train_in(tmp_path / "paused", settings)) == []

    record = recorded(paused)
    assert [attempt["status"] for attempt in record["attempts"]] == ["paused", "paused", "finished"]
    assert [set(attempt["energy"]) & {"startup", "resumption"} for attempt in record["attempts"]] == [
        {"startup"}, {"resumption"}, {"resumption"},
    ]  # fmt: skip
    phases = {name: Energy.from_json(energy).joules for name, energy in record["energy"]["phases"].items()}
    assert phases["resumption"] > 0
    assert record["metrics"]["joules"] == pytest.approx(sum(phases.values()) - phases["resumption"])


def test_a_run_that_stops_early_where_it_should_pause_has_finished(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(phantom, early_stopping=2, epochs=9, lr=1e-9, weight_decay=0.0)
    epochs = recorded(train_in(tmp_path / "whole", settings))["metrics"]["epochs"]
    assert epochs < 9
    monkeypatch.setenv(events.UNTIL, str(epochs))
    record = recorded(train_in(tmp_path / "run", settings))
    assert (record["status"], record["metrics"]["epochs"]) == ("finished", epochs)


# What the decisions of these depend on is known only at the end of an epoch, when checkpoints are written.
DECIDING: dict[str, dict[str, Any]] = {
    "it halves the learning rate": {"schedule": "plateau", "epochs": 4, "lr": 1e-6},
    "it stops early": {"early_stopping": 2, "epochs": 9, "lr": 1e-9, "weight_decay": 0.0},
    "it stops early at its last epoch": {"early_stopping": 1, "epochs": 2, "lr": 1e-9},
}


def has_decided(what: str, run: RunDirectory) -> bool:
    last = torch.load(run.last_checkpoint, weights_only=True)
    if what == "it halves the learning rate":
        return bool(last["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-6 / 2)
    (stopping,) = (state for name, state in last["callbacks"].items() if name.startswith("EarlyStopping"))
    return bool(stopping["wait_count"] == stopping["patience"])


@pytest.mark.parametrize("what", DECIDING)
def test_whenever_a_run_is_killed_it_decides_as_if_undisturbed(
    what: str, phantom: Path, undisturbed: Undisturbed
) -> None:
    settings = settings_of(phantom, **DECIDING[what])
    whole, copies = undisturbed(settings)
    assert has_decided(what, whole)
    wrong = {moment: different(whole, train_in(copy, settings)) for moment, copy in copies.items()}
    assert not any(wrong.values()), wrong


def made_by_an_earlier_version(copy: Path, one_earlier: Path) -> None:
    """Rewrite last.ckpt as it was before it knew of the decisions of its own epoch."""
    path = RunDirectory(copy).last_checkpoint
    now, before = (torch.load(RunDirectory(run).last_checkpoint, weights_only=True) for run in (copy, one_earlier))
    for name in now["callbacks"]:
        if name.startswith("EarlyStopping"):
            now["callbacks"][name] = before["callbacks"][name]
    now["lr_schedulers"] = before["lr_schedulers"]
    for group, earlier in zip(
        now["optimizer_states"][0]["param_groups"], before["optimizer_states"][0]["param_groups"], strict=True
    ):
        group["lr"] = earlier["lr"]
    del now["callbacks"]["Checkpoints"]["behind"]
    torch.save(now, path)


@pytest.mark.parametrize(
    "values", [DECIDING["it halves the learning rate"], DECIDING["it stops early"] | {"schedule": "constant"}]
)
def test_a_checkpoint_of_an_earlier_version_is_brought_up_to_date(
    values: dict[str, Any], phantom: Path, undisturbed: Undisturbed
) -> None:
    settings = settings_of(phantom, **values)
    whole, copies = undisturbed(settings)
    first, second, third = (copies[f"epoch {epoch} last.ckpt"] for epoch in range(3))
    made_by_an_earlier_version(third, second)
    made_by_an_earlier_version(second, first)
    for copy in (second, third):
        found = different(whole, train_in(copy, settings))
        # Where nothing is left to train, nothing is written either.
        assert [text for text in found if copy == second or not text.startswith("/callbacks/")] == []


def test_without_the_line_of_its_epoch_an_earlier_checkpoint_still_goes_on(
    phantom: Path, undisturbed: Undisturbed
) -> None:
    settings = settings_of(phantom, **DECIDING["it stops early"])
    _, copies = undisturbed(settings)
    first, second = (copies[f"epoch {epoch} last.ckpt"] for epoch in range(2))
    made_by_an_earlier_version(second, first)
    (second / "epochs.jsonl").unlink()
    assert [line["epoch"] for line in lines_of(train_in(second, settings))] == [2, 3]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def with_bomb(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"bomb": Bomb(path.with_name("exploded"))}, path)


def of_another_network(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["callbacks"]["Checkpoints"]["run"]  # as those of earlier versions
    name, tensor = next(iter(checkpoint["state_dict"].items()))
    checkpoint["state_dict"][name] = torch.cat([tensor, tensor])
    torch.save(checkpoint, path)


def of_another_run(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["run"] = "0" * 32
    torch.save(checkpoint, path)


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "text": lambda path: path.write_text("not a checkpoint"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps({"epoch": 1})),
    "a bare bomb": lambda path: path.write_bytes(pickle.dumps(Bomb(path.with_name("exploded")))),
    "a bomb": with_bomb,
    "a list": lambda path: torch.save([1, 2], path),
    "weights alone": lambda path: shutil.copy(path.with_name("best.ckpt"), path),
    "another network": of_another_network,
    "another run": of_another_run,
}


@pytest.fixture(scope="module")
def stopped(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, RunDirectory, Path]:
    """Settings, the run undisturbed, and a copy of it after its second epoch."""
    settings = settings_of(phantom)
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(events.THREADS, "1")
        photographer = Photographer(patch, folder / "copies")
        whole = train_in(folder / "whole", settings)
    return settings, whole, photographer.copies["epoch 1 last.ckpt"]


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_run_whose_checkpoint_is_unusable_starts_over_and_says_so(
    what: str,
    stopped: tuple[Settings, RunDirectory, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, whole, copy = stopped
    run = RunDirectory(Path(shutil.copytree(copy, tmp_path / "run")))
    UNUSABLE[what](run.last_checkpoint)
    train_in(run.path, settings)
    assert not (run.checkpoints / "exploded").exists()
    assert "last.ckpt" in capsys.readouterr().err
    assert [(line["attempt"], line["epoch"]) for line in lines_of(run)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert different(whole, run) == []
    record = recorded(run)
    assert record["attempts"][1]["started_over"]
    spent = [Energy.from_json(e).joules for attempt in record["attempts"] for e in attempt["energy"].values()]
    assert record["metrics"]["joules"] == pytest.approx(sum(spent)), "what was spent was spent"


def test_epochs_that_another_start_superseded_do_not_count(
    stopped: tuple[Settings, RunDirectory, Path], tmp_path: Path
) -> None:
    settings, _, copy = stopped
    run = RunDirectory(Path(shutil.copytree(copy, tmp_path / "run")))
    first, second = lines_of(run)
    (run.path / "epochs.jsonl").unlink()
    for line in (first, second | {"dice": 0.99}, second | {"epoch": 5, "dice": 1.0}):
        append(run, line)
    run.last_checkpoint.unlink()
    metrics = recorded(train_in(run.path, settings))["metrics"]
    assert metrics["epochs"] == 3
    assert metrics["dice"] < 0.99


def test_a_run_that_is_asked_to_stop_as_it_writes_keeps_that_epoch(
    phantom: Path, tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(phantom, early_stopping=2, schedule="plateau")
    whole, _ = undisturbed(settings)
    append = RunDirectory.append_epoch

    def append_and_be_interrupted(run: RunDirectory, line: Epoch) -> None:
        append(run, line)
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted("SIGINT")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        for epoch in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(RunDirectory, "append_epoch", append_and_be_interrupted)
                with pytest.raises(Interrupted):
                    train_in(tmp_path / "parts", settings)
            assert torch.load(RunDirectory(tmp_path / "parts").last_checkpoint, weights_only=True)["epoch"] == epoch
    finally:
        signal.signal(signal.SIGINT, before)
    parts = train_in(tmp_path / "parts", settings)
    assert [line["attempt"] for line in lines_of(parts)] == [0, 1, 2]
    assert different(whole, parts) == []
