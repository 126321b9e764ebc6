"""Several devices train one network: what a strategy goes with, and that it trains what it should."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greenseg.errors import UserError
from greenseg.machine import gpus, preflight
from greenseg.settings import Settings, problems_of
from tests import warm
from tests.cli.test_train import epochs, only_run, record, start, wait_for_epochs
from tests.conftest import SMALL, Command, free_port


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 1}, "devices: 1"),
        ({"precision": "16-mixed"}, "precision: 16-mixed"),
        ({"precision": "64-true", "compile": True}, "precision: 64-true or compile: true"),
        ({"optimizer": "adafactor"}, "optimizer: adafactor"),
        ({"optimizer": "novograd"}, "optimizer: novograd"),
    ],
)
def test_what_fsdp_does_not_go_with(values: dict[str, Any], message: str) -> None:
    (problem,) = problems_of({"strategy": "fsdp", "devices": 2} | values)
    assert str(problem).startswith("strategy: fsdp ")
    assert str(problem).endswith(f" with {message}")


def test_what_fsdp_goes_with() -> None:
    for values in ({}, {"precision": "bf16-mixed"}, {"optimizer": "muon"}, {"accumulate": 2, "gradient_clip": 1.0}):
        assert problems_of({"strategy": "fsdp", "devices": 2} | values) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [(2, ""), (0, "works on CUDA, not on CPUs; ")],
)
def test_deepspeed_names_its_extra_after_what_no_extra_helps_against(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    monkeypatch.setattr(gpus, "count", lambda: number)
    with pytest.raises(UserError) as caught:
        preflight.check(Settings.of({"strategy": "deepspeed_stage_2", "devices": 2}))
    assert caught.value.problems == [
        f"strategy deepspeed_stage_2: {message}needs deepspeed: pip install 'greenseg[deepspeed]'"
    ]


def test_deepspeed_needs_gpus_and_an_optimizer_that_knows_no_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: name)
    values = {"strategy": "deepspeed_stage_2", "devices": 2, "accelerator": "cpu"}
    (problem,) = problems_of(values | {"optimizer": "muon"})
    assert str(problem).startswith("strategy: deepspeed_stage_2 ")
    assert str(problem).endswith(" with optimizer: muon")
    with pytest.raises(UserError, match="strategy deepspeed_stage_2: works on CUDA, not on CPUs"):
        preflight.check(Settings.of(values))


def test_a_strategy_that_lightning_has_not_for_the_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "apple", lambda: True)
    with pytest.raises(UserError, match="strategy fsdp: works on CPUs and CUDA, not on Apple GPUs"):
        preflight.check(Settings.of({"strategy": "fsdp", "devices": 2, "accelerator": "mps"}))


def test_every_optimizer_that_fsdp_takes_steps_as_with_ddp() -> None:
    torchrun = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        warm.Popen(
            [sys.executable, "-m", "tests.training.sharded"],
            cwd=Path(__file__).parents[2], env=torchrun | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=600) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    found = json.loads(next(line for line in outputs[0][0].splitlines() if line.startswith("{")))
    assert {"adamw", "adam", "sgd", "nadam", "lion", "muon", "schedule-free-adamw"} == set(found)
    assert max(found.values()) < 1e-6, found


def test_an_fsdp_run_that_was_stopped_goes_on_and_ends_as_if_undisturbed(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    arguments = ["train", "--data", str(phantom), *SMALL, "--model", "contextnet", "--epochs", "4"]
    arguments += ["--batch-size", "16", "--strategy", "fsdp", "--devices", "2", "--precision", "bf16-mixed"]
    running = start(tmp_path, *arguments)
    run = wait_for_epochs(tmp_path / "runs", 1)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=600)
    assert running.returncode == 130, output
    assert 1 <= len(epochs(run)) < 4

    resumed = greenseg(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "Continuing" in resumed.stdout
    after = record(run)
    assert after["status"] == "finished"
    assert after["ran"]["strategy"] == "ModelParallelStrategy"
    assert after["ran"]["precision"] == "bf16-mixed"

    undisturbed = greenseg(*arguments, "--out", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = epochs(only_run(tmp_path / "undisturbed"))
    got = list({line["epoch"]: line for line in epochs(run)}.values())
    for one, other in zip(expected, got, strict=True):
        assert (other["train_loss"], other["dice"]) == (one["train_loss"], one["dice"])


# ── nodes


def test_what_several_nodes_do_not_go_with(greenseg: Command, tmp_path: Path) -> None:
    (problem,) = problems_of({"nodes": 2, "batch_size": "auto", "workers": "auto"})
    assert str(problem).startswith("nodes: more than 1 ")
    assert str(problem).endswith(" with batch_size: auto or workers: auto")
    assert problems_of({"nodes": 2, "freeze_encoder": 1})
    assert problems_of({"nodes": 2, "optimizer": "sophia"})
    assert problems_of({"nodes": 2, "strategy": "fsdp"}) == []

    alone = greenseg("train", "--nodes", "2")
    assert alone.returncode == 2
    assert "nodes 2: start the same command on every node, with NODE_RANK" in alone.stderr

    (tmp_path / "nodes.yaml").write_text("grid: {nodes: [1, 2]}\n")
    sweep = greenseg("sweep", "nodes.yaml")
    assert sweep.returncode == 2
    assert "nodes.yaml:1:8: nodes 2: a sweep uses one machine only" in sweep.stderr


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_nodes_train_as_two_devices_of_one(strategy: str, greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    values = ["--data", str(phantom), *SMALL, "--model", "contextnet", "--batch-size", "8", "--strategy", strategy]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        nodes = [
            warm.Popen(
                [sys.executable, "-m", "greenseg", "train", *values, "--nodes", "2"],
                cwd=tmp_path, env=environment | {"NODE_RANK": str(node)}, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for node in (1, 0)
        ]  # fmt: skip
    finally:
        os.sched_setaffinity(0, everywhere)
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "with node 0, which leads" in outputs[0]
    assert "slices (8 × 2 nodes)" in outputs[1]

    run = only_run(tmp_path / "runs")
    written = record(run)
    assert (written["ran"]["nodes"], written["ran"]["devices"]) == (2, 1)
    assert written["ran"]["effective_batch_size"] == 16
    assert len(written["attempts"]) == 1, "node 1 wrote no record of its own"
    # One core: CPU seconds that were counted twice would exceed the clock.
    cpu_seconds = written["energy"]["total"]["joules"]["cpu"]["estimate"] / written["energy_method"]["core_watts"][0]
    assert cpu_seconds < 1.05 * written["metrics"]["seconds"]

    again = greenseg("train", *values, "--nodes", "2", NODE_RANK="1", MASTER_ADDR="127.0.0.1")
    assert again.returncode == 0
    assert "Already trained" in again.stdout

    two = greenseg("train", *values, "--devices", "2", "--out", "one_node")
    assert two.returncode == 0, two.stderr
    for one, other in zip(epochs(run), epochs(only_run(tmp_path / "one_node")), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
