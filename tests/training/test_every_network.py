"""Every network trains: one epoch, as a run does it, on a few slices (real ones where they are at hand)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from greenseg.energy import EnergyMeter
from greenseg.model_names import DECODERS, NETWORKS
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from greenseg.training.run import train
from tests.runs import lines_of

NUMBER = 4


@pytest.fixture(scope="module")
def few_slices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middle slices of one subject to train on, and of another one to validate on."""
    try:
        e2mip: Path = request.getfixturevalue("e2mip")
    except pytest.skip.Exception:
        return Path(request.getfixturevalue("phantom"))
    folder = tmp_path_factory.mktemp("few")
    for split in ("training_data", "validation_data"):
        images = sorted((e2mip / split / "images").iterdir())
        subject = images[0].name.partition("_slice")[0]
        mine = [image for image in images if image.name.startswith(f"{subject}_")]
        first = len(mine) // 2 - NUMBER // 2
        for image in mine[first : first + NUMBER]:
            stem = image.name.removesuffix(".nii.gz")
            masks = [mask for mask in (e2mip / split / "masks").iterdir() if mask.name.startswith(stem)]
            for kind, files in (("images", [image]), ("masks", masks)):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
                for file in files:
                    (folder / split / kind / file.name).symlink_to(file)
    return folder


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """A run is a process of its own, and sets what holds for all of it."""
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


LARGE = ("segnet", "sqnet")
"""Networks of so many weights that checkpoints and steps take seconds; a quarter of their width trains alike."""

NAMES = [*NETWORKS, *(f"mobilenetv3-tiny-{name}" for name in DECODERS if name != "dpt"), "tu-vit_tiny_patch16_224-dpt"]


@pytest.mark.parametrize(
    ("model", "precision"),
    [*((name, "32-true") for name in NAMES), *((name, "bf16-mixed") for name in NETWORKS)],
)
def test_every_network_trains_one_epoch(model: str, precision: str, few_slices: Path, tmp_path: Path) -> None:
    size = 128 if model.endswith("-pan") else 32
    settings = Settings.of(
        {
            "model": model, "data": str(few_slices), "image_size": size, "spacing": 256 / size, "batch_size": 2,
            "epochs": 1, "accelerator": "cpu", "precision": precision, "width": 0.25 if model in LARGE else 1.0,
        }
    )  # fmt: skip
    run = RunDirectory(tmp_path / settings.slug)
    run.create(settings)
    train(run, settings, EnergyMeter(), rank=0)
    record = json.loads((run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert 0 <= record["metrics"]["dice"] <= 1
    assert record["metrics"]["joules"] > 0
    assert record["ran"]["precision"] == precision
    (epoch,) = lines_of(run)
    assert 0 < epoch["train_loss"] < 10
    assert run.best_checkpoint.exists()
