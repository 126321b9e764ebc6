"""Submissions to the E2MIP challenge, as the jury runs them: real scripts, real training, no network."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import yaml

import greenseg as package
from greenseg.report.units import joules
from tests import warm
from tests.conftest import SMALL, Command
from tests.export import empty_root
from tests.export.empty_root import EmptyRoot, instructions, without_network

FILES = {
    "Dockerfile", "README.md", "config.yaml", "constraints.txt", "environment.sh", "figures.py", "inference.sh",
    "train.sh", f"greenseg-{package.__version__}-py3-none-any.whl",
}  # fmt: skip

Export = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    done = warm.run(
        [sys.executable, "-m", "greenseg", "train", "--data", str(phantom), *SMALL, "--price-per-kwh", "0.3"],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    (config,) = folder.rglob("config.yaml")
    return config.parent


@pytest.fixture(scope="module")
def submission(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission of this run."""
    out = tmp_path_factory.mktemp("submission") / "submission"
    done = warm.run(
        [sys.executable, "-m", "greenseg", "export", str(run), "--format", "e2mip", str(out)],
        env=dict(os.environ),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def installed(submission: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the submission's wheel and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    (wheel,) = submission.glob("*.whl")
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


@pytest.fixture(scope="module")
def mounts(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the jury mounts; the volumes to predict are two of the phantom."""
    folder = tmp_path_factory.mktemp("mounts")
    for name in ("training_data", "training_results", "query_data", "predicted_data"):
        (folder / name).mkdir()
    shutil.copytree(phantom / "training_data", folder / "training_data", dirs_exist_ok=True)
    images = sorted((phantom / "training_data" / "images").iterdir())
    for image, name in zip(images, ("DWI_0000", "FMRI_0000"), strict=False):  # elsewhere, 0000 is a channel
        shutil.copy(image, folder / "query_data" / f"{name}.nii.gz")
    return folder


Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(submission: Path, installed: Path, mounts: Path, tmp_path: Path) -> Script:
    """Runs a script of the submission with the greenseg of its wheel, without a home, if possible without network."""
    can = not empty_root.problem()

    def start(name: str, **folders: Path) -> "subprocess.CompletedProcess[str]":
        command = [str(submission / name)]
        variables = {name.upper(): str(mounts / name) for name in (path.name for path in mounts.iterdir())}
        return subprocess.run(
            without_network(*command) if can else command,
            cwd=tmp_path,
            env={
                "PATH": f"{installed / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
                "PYTHONPATH": str(installed),
                "TMPDIR": os.environ["TMPDIR"],
                **variables,
                **{name.upper(): str(path) for name, path in folders.items()},
            },
            capture_output=True,
            encoding="utf-8",
            timeout=600,
        )

    return start


def changed(run: Path, folder: Path, status: str = "finished", **settings: Any) -> Path:
    """A copy of a run with other settings or another status in its record, without checkpoints."""
    copy = folder / "changed"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("*.ckpt"))
    record = json.loads((copy / "run.json").read_text())
    record["settings"] |= settings
    record["status"] = status
    (copy / "run.json").write_text(json.dumps(record))
    return copy


# ── the folder


def test_a_submission_trains_the_settings_of_the_run_on_the_mounted_data(run: Path, submission: Path) -> None:
    assert {path.name for path in submission.iterdir()} == FILES
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert yaml.safe_load((submission / "config.yaml").read_text()) == settings | {"data": "/mnt/training_data"}
    assert all(os.access(submission / name, os.X_OK) for name in ("train.sh", "inference.sh"))

    record = json.loads((run / "run.json").read_text())
    readme = (submission / "README.md").read_text()
    assert f"{record['metrics']['dice']:.4f}" in readme
    assert joules(record["metrics"]["joules"]) in readme
    assert "enroot import" in readme

    text = "".join(path.read_text() for path in submission.iterdir() if path.suffix != ".whl")
    for private in (str(run), str(Path(package.__file__).parents[1]), str(Path.home())):
        assert private not in text, "a submission tells nothing about the machine that wrote it"


def test_auto_stays_auto_and_what_the_jury_cannot_run_is_reset_and_said(
    greenseg: Command, run: Path, tmp_path: Path
) -> None:
    others: dict[str, Any] = {
        "batch_size": "auto",
        "lr": "auto",
        "labels": "brain=3",
        "folds": 5,
        "fold": 2,
        "power_limit": 200,
    }
    done = greenseg("export", changed(run, tmp_path, **others), "--format", "e2mip", "out")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (written["batch_size"], written["lr"]) == ("auto", "auto")
    assert [written[name] for name in ("labels", "folds", "fold", "power_limit")] == ["", 0, 0, 0]
    for name in ("labels", "folds", "power_limit"):
        assert re.search(rf"\b{name} is", done.stdout + done.stderr)
        assert re.search(rf"- {name} is", (tmp_path / "out" / "README.md").read_text())


def test_a_run_of_a_sweep_is_picked_and_an_earlier_submission_replaced(
    greenseg: Command, run: Path, tmp_path: Path
) -> None:
    arguments = ["export", run.parent, "--pick", "cheapest", "--format", "e2mip", "out"]
    assert greenseg(*arguments).returncode == 0
    (tmp_path / "out" / "config.yaml").write_text("epochs: 1000")
    assert greenseg(*arguments).returncode == 2
    assert greenseg(*arguments, "--again").returncode == 0
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["epochs"] == 2


@pytest.mark.parametrize(
    ("status", "settings", "message"),
    [
        ("failed", {}, "is failed, not finished"),
        ("finished", {"nodes": 2}, "the jury has one machine"),
        ("finished", {"strategy": "deepspeed_stage_2", "devices": 2}, "which the image lacks"),
    ],
)
def test_a_run_that_the_challenge_cannot_repeat_is_refused(
    greenseg: Command, run: Path, tmp_path: Path, status: str, settings: dict[str, Any], message: str
) -> None:
    done = greenseg("export", changed(run, tmp_path, status, **settings), "--format", "e2mip", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_and_kept(greenseg: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    done = greenseg("export", run, "--format", "e2mip", "mine")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


# ── the image


def test_the_dockerfile_pins_its_base_and_leaves_no_caches(greenseg: Command, run: Path, tmp_path: Path) -> None:
    other = changed(run, tmp_path, compile=True, country="FRA")
    assert greenseg("export", other, "--format", "e2mip", "out").returncode == 0
    text = (tmp_path / "out" / "Dockerfile").read_text()
    found = list(instructions(text))
    version = ".".join(map(str, sys.version_info[:3]))
    assert [rest for word, rest in found if word == "FROM"] == [f"python:{version}-slim-bookworm"]
    copied = [name for word, rest in found if word == "COPY" for name in rest.split()[:-1]]
    assert sorted(copied) == sorted(FILES - {"Dockerfile"})
    for word, rest in found:
        if word == "RUN" and "pip install" in rest:
            assert "--no-cache-dir" in rest
            assert "--constraint constraints.txt" in rest
            assert "[carbon]" in rest, "country needs it"
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest
    assert "\ncodecarbon==" in (tmp_path / "out" / "constraints.txt").read_text()
    assert sum("apt-get" in rest for _, rest in found) == 1, "torch.compile needs a compiler"
    assert ("ENV", "NVIDIA_VISIBLE_DEVICES=all") in found
    assert not any(word == "USER" for word, _ in found), "the jury chooses the user"


def test_linters_have_no_complaint(submission: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    missing = [name for name in ("shellcheck", "hadolint") if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed (group dev)")
    scripts = sorted(submission.glob("*.sh"))
    for command in (
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts],
        ["hadolint", submission / "Dockerfile"],
    ):
        done = subprocess.run(list(map(str, command)), env={"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_constraints_are_the_versions_of_this_environment(submission: Path) -> None:
    from importlib.metadata import version

    lines = [line for line in (submission / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert {"torch", "pytorch-lightning", "segmentation-models-pytorch", "numpy", "zeus", "pydantic-core"} <= set(
        pinned
    )
    assert not {"greenseg", "pytest", "mypy", "codecarbon"} & set(pinned), "neither itself, nor what it does not need"
    assert all(version(name).split("+")[0] == pin for name, pin in pinned.items())


def test_the_wheel_is_this_greenseg_wherever_it_was_installed_from(submission: Path, installed: Path) -> None:
    code = "import greenseg, hashlib\nfrom greenseg.export.e2mip.wheel import wheel\nprint(greenseg.__file__)\n"
    code += "print(hashlib.sha256(wheel()).hexdigest())"
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    where, digest = done.stdout.split()
    assert Path(where).is_relative_to(installed)
    (wheel,) = submission.glob("*.whl")
    assert digest == hashlib.sha256(wheel.read_bytes()).hexdigest()


# ── the scripts


def test_the_scripts_train_and_predict_without_network_and_training_data(script: Script, mounts: Path) -> None:
    trained = script("train.sh")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "total energy" in trained.stdout

    again = script("train.sh")
    assert again.returncode == 0
    assert "Already trained" in again.stdout

    shutil.rmtree(mounts / "training_data")
    predicted = script("inference.sh")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    volumes = sorted((mounts / "query_data").iterdir())
    masks = sorted((mounts / "predicted_data").iterdir())
    assert [mask.name for mask in masks] == [volume.name.replace(".nii.gz", "_maskpred.nii.gz") for volume in volumes]
    for volume, path in zip(map(sitk.ReadImage, map(str, volumes)), masks, strict=True):
        mask = sitk.ReadImage(str(path))
        assert mask.GetSize() == volume.GetSize()
        assert mask.GetSpacing() == pytest.approx(volume.GetSpacing())
        assert mask.GetOrigin() == pytest.approx(volume.GetOrigin(), abs=1e-4)
        assert mask.GetDirection() == pytest.approx(volume.GetDirection(), abs=1e-5)
        assert set(sitk.GetArrayViewFromImage(mask).ravel().tolist()) <= {0, 1}

    figures = json.loads((mounts / "training_results" / "inference.json").read_text())
    (record,) = (mounts / "training_results").rglob("run.json")
    assert figures["dice"] == json.loads(record.read_text())["metrics"]["dice"]
    assert figures["training"] == json.loads(record.read_text())["energy"]["total"]["joules"]
    assert figures["volumes"] == 2
    assert sum(figures["inference"]["cpu"].values()) > 0
    for text in ("Dice in validation", "joules of training", "joules of inference"):
        assert text in predicted.stdout

    below = mounts / "other_query_data"
    shutil.move(str(mounts / "query_data"), str(below / "images"))
    (below / "images" / volumes[0].name).write_bytes(b"no volume")
    masks[1].unlink()
    broken = script("inference.sh", query_data=below)
    assert broken.returncode not in (0, None)
    assert masks[1].exists(), "a volume that cannot be read costs the others nothing"
    assert "Traceback" not in broken.stderr


def test_a_script_that_cannot_do_its_work_fails(script: Script, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, folders in (
        ("train.sh", {"training_data": tmp_path / "missing"}),
        ("train.sh", {"training_data": tmp_path / "empty"}),
        ("inference.sh", {"training_results": tmp_path / "empty"}),
        ("inference.sh", {"query_data": tmp_path / "missing"}),
    ):
        results = {"training_results": tmp_path / "results", "predicted_data": tmp_path / "predicted"}
        done = script(name, **{**results, **folders})
        assert done.returncode > 0, name
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_image_works_in_an_empty_root(
    greenseg: Command, run: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands, as written; then its scripts in a read-only root, as a user without a name, without network."""
    if why := empty_root.problem():
        pytest.skip(f"no empty root here: {why}")
    hub = hub_with_weights(tmp_path / "hub")
    pretrained = changed(run, tmp_path, encoder_weights="imagenet", epochs=1)
    done = greenseg("export", pretrained, "--format", "e2mip", "out", HF_HUB_CACHE=str(hub))
    assert done.returncode == 0, done.stderr
    assert "hub" not in done.stdout + done.stderr, "the weights are in the folder, so the build loads none"

    (tmp_path / "root").mkdir()
    root = EmptyRoot(tmp_path / "root")
    root.build(tmp_path / "out")
    mounts = {}
    for name in ("training_data", "training_results", "query_data", "predicted_data"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        mounts[f"/mnt/{name}"] = tmp_path / name
    shutil.copytree(phantom / "training_data", tmp_path / "training_data" / "train_slice")
    (volume, *_) = sorted((phantom / "training_data" / "images").iterdir())
    shutil.copy(volume, tmp_path / "query_data" / "X.nii.gz")

    data, results, query, masks = mounts
    trained = root.run("/submission/train.sh", {at: mounts[at] for at in (data, results)})
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (record,) = (tmp_path / "training_results").rglob("run.json")
    assert json.loads(record.read_text())["settings"]["encoder_weights"] == "imagenet"

    predicted = root.run("/submission/inference.sh", {at: mounts[at] for at in (results, query, masks)})
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    assert [path.name for path in (tmp_path / "predicted_data").iterdir()] == ["X_maskpred.nii.gz"]


def hub_with_weights(folder: Path) -> Path:
    """A cache of the Hugging Face hub with weights of the encoder of `SMALL`, which nobody trained."""
    import timm
    from safetensors.torch import save_file

    name = "mobilenetv3_small_050.lamb_in1k"
    snapshot = folder / f"models--timm--{name}" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    (snapshot.parents[1] / "blobs").mkdir()
    blob = snapshot.parents[1] / "blobs" / "weights"
    save_file(timm.create_model(name).state_dict(), blob)
    (snapshot / "model.safetensors").symlink_to(Path("..", "..", "blobs", blob.name))
    return folder
