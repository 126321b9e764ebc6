"""Help and mistakes answer at once: nothing heavy is imported for them, and nothing is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "torch", "pytorch_lightning", "SimpleITK", "numpy", "timm", "segmentation_models_pytorch", "kornia", "zeus",
    "scipy", "moocore", "matplotlib", "nibabel",
}  # fmt: skip

SWEEP = "grid:\n  precison: [32-true]\n  batch_size: 8\nbase:\n  model: resnet17-unet\n"


def run(*arguments: str, cwd: Path) -> tuple[int, str, set[str]]:
    """Exit code, stdout and stderr, and the packages that were imported."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = result.stderr.splitlines()
    imports = [line for line in lines if line.startswith("import time:")]
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    return result.returncode, result.stdout + said, {re.split(r"[|.]", line.replace(" ", ""))[2] for line in imports}


def test_importing_the_command_imports_nothing_heavy(tmp_path: Path) -> None:
    code, said, imported = run("-c", "import greenseg.cli, greenseg.energy, greenseg.sweep.file", cwd=tmp_path)
    assert (code, said) == (0, "")
    assert {"greenseg", "pydantic", "typer"} <= imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--help", "How much accuracy does a joule buy?"),
        ("--version", "greenseg 0."),
        ("train --help", "--precision"),
        ("train --help", "N|auto"),
        ("sweep --help", "--retry-failed"),
        ("sweep --help", "Run the same command in several terminals to share the work."),
        ("report --help", "Pareto"),
        ("data --help", "phantom"),
        ("models --help", "--image-size"),
        ("evaluate --help", "--allow-missing"),
        ("predict --help", "--flip-averaging"),
        ("measure --help", "--seconds"),
        ("export --help", "onnx, torch"),
        ("runs --help", "prune"),
        ("runs prune --help", "--dry-run"),
    ],
)
def test_help_imports_nothing_heavy(arguments: str, expected: str, tmp_path: Path) -> None:
    code, said, imported = run("-m", "greenseg", *arguments.split(), cwd=tmp_path)
    assert code == 0
    assert expected in " ".join(said.split())
    assert not imported & HEAVY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("train --precision bf16-mixd", ["did you mean 'bf16-mixed'?"]),
        ("train --epochs 0 --encoder resnet17", ["epochs: 0", "did you mean 'resnet18'?"]),
        ("train --encoder tu-resnet1", ["timm has no model 'resnet1'"]),
        ("train --encoder vgg11 --decoder pan", ["vgg11-pan"]),
        (
            "train --epochs 2.5 --spacing wide",
            ["epochs: '2.5' is not a whole number", "spacing: 'wide' is not a number"],
        ),
        ("train --epoch 3", ["--epoch"]),
        ("predict here -i there -o out --precision bf16-mixd", ["there: no such", "did you mean 'bf16-mixed'?"]),
        ("predict nowhere -i . -o out", ["nowhere: no such run directory"]),
        ("measure nowhere --seconds 3", ["nowhere: no such run directory"]),
        ("measure . --seconds -3 --accelerator cup", ["--seconds -3: must be above 0", "did you mean 'cpu'?"]),
        ("train --config nowhere.yaml", ["nowhere.yaml: no such file"]),
        ("train --config sweep.yaml", ["sweep.yaml:1:1: unknown setting 'grid'"]),
        ("sweep nowhere.yaml", ["nowhere.yaml: no such file"]),
        (
            "sweep sweep.yaml",
            [
                "sweep.yaml:2:3: unknown setting 'precison' (did you mean 'precision'?)",
                "sweep.yaml:3:3: batch_size: an axis is a list of values",
                "sweep.yaml:5:3: model: no encoder 'resnet17' (did you mean 'resnet18'?)",
            ],
        ),
        ("sweep .", ["cannot be read"]),
        ("sweep sweep.yaml --retry", ["--retry"]),
        ("sweep sweep.yaml --out sweep.yaml", ["--out sweep.yaml: sweep.yaml is a file"]),
        ("train --out sweep.yaml/runs", ["--out sweep.yaml/runs: sweep.yaml is a file"]),
        ("report nowhere", ["nowhere: no such folder"]),
        ("report .", ["no runs here"]),
        ("reprot", ["reprot"]),
        ("runs list nowhere", ["nowhere: no such folder"]),
        ("runs prune . --keep nome", ["--keep: no 'nome' (did you mean 'none'?); valid: best, none"]),
        ("models enett resnet18-ennet", ["(did you mean 'enet'?)", "no decoder 'ennet'"]),
        ("models zzz*", ["no model matches 'zzz*'"]),
        ("models --image-size 100", ["image_size: 100"]),
        ("train --model enet --encoder resnet18", ["resnet18-enet: enet is a whole network"]),
        ("train --model mobilenet-pan --image-size 64", ["pan needs image_size 128"]),
        ("evaluate a b --tolerance -1 --images c", ["--tolerance -1: must be a distance", "--images: only --montage"]),
        ("evaluate a b --labels csf=1,grey=1", ["label 1 is in two classes, csf and grey"]),
        ("export a b.onx", ["b.onx: its suffix names no format", "torch (.pt2)"]),
        ("export a b.onnx --format onxx", ["no 'onxx' (did you mean 'onnx'?)", "monai-bundle (a folder)"]),
        ("export a b.pt --format torch", ["--format torch writes a .pt2 file; name it b.pt2"]),
        ("export a b.pt2 --format monai-bundle", ["--format monai-bundle writes a folder; name it b"]),
        ("export a no/b.pt2", ["no/b.pt2: no such folder: no"]),
        ("export a sweep.yaml --format monai-bundle --again", ["sweep.yaml: this is a file; name a folder"]),
        ("export a b.pt2", ["a: no such run directory"]),
        ("evaluate a b --json no/a.json --csv .", ["--json no/a.json: no such folder", "--csv .: this is a folder"]),
    ],
)
def test_a_mistake_costs_nothing(arguments: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    code, said, imported = run("-m", "greenseg", *arguments.split(), cwd=tmp_path)
    assert code == 2
    for text in expected:
        assert text in said
    assert "Traceback" not in said
    assert not imported & HEAVY
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
