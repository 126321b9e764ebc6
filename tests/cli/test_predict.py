"""`greenseg predict`, as a user runs it: real networks, real files, real signals."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests import warm
from tests.conftest import Command
from tests.data.datasets import write, write_nnunet

Array = np.ndarray[Any, Any]

SPACING = (8, 8, 12)
OPTIONS = [
    "--model", "mobilenetv3-tiny-unet", "--image-size", "32", "--spacing", "8", "--batch-size", "8", "--lr", "3e-3",
    "--accelerator", "cpu",
]  # fmt: skip


def case(seed: int, labels: tuple[int, ...] = (1,), slices: int = 6) -> tuple[list[Array], Array]:
    """Two channels and a mask, [6, 32, 32]: a bright disc; of two labels, its halves, of different brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((32, 32))
    disc = (y - rng.uniform(12, 20)) ** 2 + (x - rng.uniform(12, 20)) ** 2 < 64
    mask = np.zeros((slices, 32, 32), np.uint16)
    mask[:, disc] = labels[0]
    mask[:, disc & (x > 16)] = labels[-1]
    noise = rng.normal(0, 15, (2, *mask.shape))
    bright = 100 + 300 * (mask > 0) + noise[0] + 100 * (mask == labels[-1])
    return [bright.astype(np.float32), (600 * (mask == labels[-1]) - 200 + noise[1]).astype(np.float32)], mask


def trained(folder: Path, data: Path, epochs: int) -> Path:
    arguments = ["train", "--data", str(data), *OPTIONS, "--epochs", str(epochs)]
    done = warm.run(
        [sys.executable, "-m", "greenseg", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, done.stderr
    (config,) = folder.rglob("config.yaml")
    return config.parent


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set in layout e2mip, and a run on it; a pixel of a file is one of the network."""
    root = tmp_path_factory.mktemp("one")
    for number in range(6):
        (bright, _), mask = case(number)
        split = "validation_data" if number == 5 else "training_data"
        write(root / "data" / split / "images" / f"c{number}.nii.gz", bright, SPACING)
        write(root / "data" / split / "masks" / f"c{number}.nii.gz", mask.astype(np.uint8), SPACING)
    return root / "data", trained(root, root / "data", 6)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of two classes and two channels, and a run on it."""
    root = tmp_path_factory.mktemp("several")
    cases = {f"c{number}": case(number, (3, 300)) for number in range(6)}
    images = {f"{name}_{n:04}": image for name, (both, _) in cases.items() for n, image in enumerate(both)}
    masks = {name: mask for name, (_, mask) in cases.items()}
    data = write_nnunet(
        root / "data", masks, {"background": 0, "left": 3, "right": 300}, {"0": "T2", "1": "DWI"}, **images
    )
    for path in [*data.glob("imagesTr/*"), *data.glob("labelsTr/*")]:
        image = sitk.ReadImage(str(path))
        image.SetSpacing(SPACING)
        sitk.WriteImage(image, str(path))
    return data, trained(root, data, 6)


def read(path: Path) -> Array:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def masks_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith(".") and path.suffix != ".jsonl")


def dice(one: Array, other: Array) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_a_data_set_is_predicted_as_in_the_validation_of_the_training(
    greenseg: Command, one: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = one
    done = greenseg("predict", run, "-i", data, "-o", "out")
    assert done.returncode == 0, done.stderr
    for text in ("6 volumes", "36 slices", "slices/s", "source: estimate", "startup", "per slice", "per volume"):
        assert text in done.stdout
    out = tmp_path / "out"
    assert masks_in(out) == [f"c{number}.nii.gz" for number in range(6)]

    # The grids coincide, so the masks have the Dice that the training recorded at its best epoch.
    recorded = json.loads((run / "run.json").read_text())["metrics"]["volume_dice"]
    truth = read(data / "validation_data" / "masks" / "c5.nii.gz") > 0
    found = read(out / "c5.nii.gz") > 0
    assert 0.3 < recorded["c5"] <= 1
    assert dice(found, truth) == pytest.approx(recorded["c5"], abs=1e-6)

    head, startup, *rest = lines(out)
    assert head["options"]["precision"] == "32-true"
    assert startup["phase"] == "startup"
    of_masks = [line for line in rest if "mask" in line]
    assert [line["slices"] for line in of_masks] == [6] * 6
    assert all(line["energy"]["joules"]["cpu"]["estimate"] >= 0 for line in rest)
    assert sum(line["energy"]["joules"]["cpu"]["estimate"] for line in lines(out)[1:]) > 0

    again = greenseg("predict", run, "-i", data, "-o", "out")
    assert again.returncode == 0
    assert "Already predicted" in again.stdout
    assert lines(out)[1:] == [startup, *rest]


def test_classes_and_channels(greenseg: Command, several: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = several
    done = greenseg("predict", run, "-i", data / "imagesTr", "-o", "out", "--save-probabilities", "--largest-component")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert masks_in(out) == [*(f"c{number}.nii.gz" for number in range(6)), "probabilities"]
    mask, truth = read(out / "c0.nii.gz"), read(data / "labelsTr" / "c0.nii.gz")
    assert mask.dtype == np.uint16
    assert set(np.unique(mask)) <= {0, 3, 300}
    assert dice(mask > 0, truth > 0) > 0.3
    left, right = (read(out / "probabilities" / name / "c0.nii.gz") for name in ("left", "right"))
    assert (left + right).max() <= 1 + 1e-5
    assert (left[mask == 3] >= right[mask == 3]).all()

    whole = greenseg("predict", run, "-i", data, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    assert masks_in(tmp_path / "whole") == [f"c{number}.nii.gz" for number in range(6)]
    refused = greenseg("predict", run, "-i", data, "-o", "more", "--threshold", "0.3")
    assert refused.returncode == 2
    assert "2 classes" in refused.stderr
    assert not (tmp_path / "more").exists()


def test_files_that_fail_are_named_and_the_rest_is_done(
    greenseg: Command, one: tuple[Path, Path], several: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = one
    folder = tmp_path / "in"
    shutil.copytree(data / "training_data" / "images", folder)
    content = (folder / "c1.nii.gz").read_bytes()
    (folder / "c1.nii.gz").write_bytes(content[:900])
    (folder / "gone.nii.gz").symlink_to("nowhere.nii.gz")
    write(folder / "vector.nrrd", np.ones((4, 24, 24, 2), np.float32), is_vector=True)
    done = greenseg("predict", run, "-i", folder, "-o", "out", "--suffix", "maskpred")
    assert done.returncode == 1
    assert "c1.nii.gz" in done.stderr
    assert "2 channels" in done.stderr
    assert "gone.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    assert masks_in(tmp_path / "out") == [f"c{number}_maskpred.nii.gz" for number in (0, 2, 3, 4)]

    (folder / "c1.nii.gz").write_bytes(content)
    (folder / "vector.nrrd").unlink()
    (folder / "gone.nii.gz").unlink()
    before = {line["mask"]: line for line in lines(tmp_path / "out")[1:] if "mask" in line}
    repaired = greenseg("predict", run, "-i", folder, "-o", "out", "--suffix", "maskpred")
    assert repaired.returncode == 0, repaired.stderr
    assert "4 of 5" in repaired.stdout
    after = {line["mask"]: line for line in lines(tmp_path / "out")[1:] if "mask" in line}
    assert set(after) - set(before) == {"c1_maskpred.nii.gz"}


def test_what_changed_or_is_missing_is_predicted_again_and_the_rest_is_not(
    greenseg: Command, one: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = one
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(data / "training_data" / "images", folder)
    assert greenseg("predict", run, "-i", folder, "-o", out).returncode == 0
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    write(folder / "c0.nii.gz", case(99)[0][0], SPACING)
    (out / "c1.nii.gz").unlink()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"mask": "c9')  # a killed process
    done = greenseg("predict", run, "-i", folder, "-o", out)
    assert done.returncode == 0, done.stderr
    now = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert {name for name in now if now[name] != stamps[name]} == {"c0.nii.gz", "c1.nii.gz"}
    assert all("c9" not in line.get("mask", "") for line in lines(out)[1:])

    options = greenseg("predict", run, "-i", folder, "-o", out, "--threshold", "0.4")
    assert options.returncode == 2
    assert "threshold 0.5" in options.stderr
    assert "--again" in options.stderr
    retrained = tmp_path / "retrained"
    shutil.copytree(run, retrained)
    import torch

    checkpoint = torch.load(retrained / "checkpoints" / "best.ckpt", weights_only=True)
    weights = checkpoint["state_dict"]
    weights[next(iter(weights))] += 1
    torch.save(checkpoint, retrained / "checkpoints" / "best.ckpt")
    other = greenseg("predict", retrained, "-i", folder, "-o", out)
    assert other.returncode == 2
    assert "another network" in other.stderr
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")} == now
    replaced = greenseg("predict", retrained, "-i", folder, "-o", out, "--again")
    assert replaced.returncode == 0, replaced.stderr
    assert len([line for line in lines(out) if "mask" in line]) == 5

    write(tmp_path / "elsewhere" / "c0.nii.gz", case(5)[0][0], SPACING)
    clash = greenseg("predict", retrained, "-i", tmp_path / "elsewhere", "-o", out)
    assert clash.returncode == 2
    assert "c0.nii.gz is the mask of" in clash.stderr


def start(folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return warm.Popen(
        [sys.executable, "-m", "greenseg", *map(str, arguments)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_masks(out: Path, number: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (out / "predictions.jsonl").exists() and (out / "predictions.jsonl").read_text().count('"mask"') >= number:
            return
        time.sleep(0.01)
    raise TimeoutError(f"no {number} masks in {out}")


LONG = 14  # volumes


@pytest.fixture(scope="module")
def long(one: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A prediction of some seconds."""
    folder = tmp_path_factory.mktemp("long")
    for number in range(LONG):
        write(folder / f"c{number:02}.nii.gz", np.tile(case(number)[0][0], (3, 1, 1)), SPACING)
    return ["predict", str(one[1]), "-i", str(folder), "--batch-size", "1", "--flip-averaging"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_prediction_goes_on(how: signal.Signals, greenseg: Command, long: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start(tmp_path, *long, "-o", "out")
    wait_for_masks(out, 2)
    busy = greenseg(*long, "-o", "out") if how == signal.SIGTERM else None
    running.send_signal(how)
    output, _ = running.communicate(timeout=300)
    if busy:
        assert busy.returncode == 3
        assert "Another process" in busy.stderr
    assert running.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), output
    finished = [line["mask"] for line in lines(out)[1:] if "mask" in line]
    assert 2 <= len(finished) < LONG
    stamps = {name: (out / name).stat().st_mtime_ns for name in finished}
    (out / f".c0.nii.gz.{os.getpid()}.tmp").touch()  # as a killed process leaves it
    done = greenseg(*long, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert f"{len(finished)} of {LONG}" in done.stdout
    assert masks_in(out) == [f"c{number:02}.nii.gz" for number in range(LONG)]
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == stamps
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == {".lock"}
    assert sum(line.get("phase") == "startup" for line in lines(out)) == 2


def test_a_full_disk_ends_it_without_half_a_file(greenseg: Command, one: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = one
    write(tmp_path / "in" / "big.nrrd", np.random.default_rng(0).random((20, 300, 300), np.float32), (1, 1, 5))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        done = greenseg("predict", run, "-i", "in", "-o", "out", "--save-probabilities")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix == ".nrrd"] == []


def test_wrong_input_is_refused_before_anything_is_written(
    greenseg: Command, one: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = one
    images = data / "training_data" / "images"
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    there = tmp_path / "there"
    shutil.copytree(data / "training_data" / "masks", there)
    wrong: list[tuple[list[str | Path], list[str]]] = [
        (
            [run, "-i", "nowhere", "-o", "file/x", "--threshold", "2", "--batch-size", "0", "--precision", "bf16-mixd",
             "--accelerator", "tpu", "--layout", "bds", "--suffix", "a/b", "--pick", "bests"],
            ["nowhere: no such", "file is a file", "threshold 2", "batch-size 0", "did you mean 'bf16-mixed'",
             "no 'tpu'", "did you mean 'bids'", "--suffix 'a/b'", "did you mean 'best'"],
        ),
        (["nowhere", "-i", images, "-o", "out"], ["nowhere: no such run"]),
        (["empty", "-i", images, "-o", "out"], ["empty: not a run directory"]),
        ([run.parent, "-i", images, "-o", "out"], ["--pick best"]),
        ([run, "-i", "empty", "-o", "out"], ["empty: no images"]),
        ([run, "-i", images, "-o", images], ["is the input"]),
        ([run, "-i", data, "-o", images], ["folder of the input"]),
        ([run, "-i", images / "c0.nii.gz", "-o", images], ["would overwrite"]),
        ([run, "-i", images, "-o", there], ["not a prediction by greenseg"]),
        ([run, "-i", images, "-o", "out", "--precision", "16-true"], ["16-true: is slow on a CPU"]),
        ([run, "-i", images, "-o", "out", "--channels", "T2"], ["--channels T2"]),
    ]  # fmt: skip
    before = sorted(path for path in data.rglob("*"))
    for arguments, expected in wrong:
        done = greenseg("predict", *arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        for text in expected:
            assert text in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert sorted(path for path in data.rglob("*")) == before
    assert read(there / "c0.nii.gz").any()


def test_a_run_is_picked_from_a_sweep(greenseg: Command, one: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = one
    image = data / "validation_data" / "images" / "c5.nii.gz"
    done = greenseg("predict", run.parent, "--pick", "best", "-i", image, "-o", "out", "--accelerator", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Picked best" in done.stdout
    assert masks_in(tmp_path / "out") == ["c5.nii.gz"]
