"""The folder of a submission: an image that retrains the configuration of a run and predicts with the result."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import greenseg
from greenseg import yamlfile
from greenseg.errors import UserError
from greenseg.export.e2mip.configuration import extras, for_the_jury
from greenseg.export.e2mip.dockerfile import dockerfile
from greenseg.export.e2mip.pins import pins
from greenseg.export.e2mip.readme import readme
from greenseg.export.e2mip.wheel import installed, wheel, wheel_name
from greenseg.export.formats import Request
from greenseg.models import weights
from greenseg.report.reader import read_runs
from greenseg.report.run import Run
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings

_FILES = Path(__file__).parent / "files"
_TAG = "greenseg-e2mip"
_PROGRAMS = ("train.sh", "inference.sh")


def write(request: Request, out: Path) -> list[str]:
    """Write the folder of a submission; see `greenseg.export.formats.Write`.

    Args:
        request: its run must be finished.
        out: the folder to make.

    Returns:
        Sentences for the user.

    Raises:
        UserError: the challenge cannot run this configuration, the run is not finished, or greenseg is not installed.
        OSError: the disk is full.
    """
    run = _finished(RunDirectory(request.run))
    settings, notes = for_the_jury(run.directory, run.record)
    needed = extras(settings)
    pinned = pins(installed().requires or [], needed)
    files: dict[str, bytes | str] = {
        wheel_name(): wheel(),
        "constraints.txt": _constraints(pinned),
        "config.yaml": yamlfile.dump(settings.resolved()),
        **{file.name: file.read_text(encoding="utf-8") for file in sorted(_FILES.iterdir()) if file.is_file()},
    }
    cached = [] if settings.encoder_weights == "none" else weights.in_cache(settings.encoder, settings.encoder_weights)
    files["Dockerfile"] = dockerfile(settings, wheel_name(), needed, _TAG, bool(cached))
    files["README.md"] = readme(run, settings, notes, pinned, wheel_name(), _TAG)
    out.mkdir()
    for name, content in files.items():
        file = out / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o755 if name in _PROGRAMS else 0o644)
    for folder in cached:
        _copy_weights(folder, out / "weights" / folder.name)
    return [*notes, *_about_weights(settings, bool(cached)), *_about_device(settings)]


def _finished(directory: RunDirectory) -> Run:
    if not (directory.path / "config.yaml").exists():
        raise UserError(f"{directory.path}: not a run directory; a submission is made from a finished run")
    runs, damaged = read_runs([directory])
    if damaged:
        raise UserError(damaged)
    if not runs or runs[0].status != "finished":
        status = runs[0].status if runs else "new"
        raise UserError(f"{directory.path}: is {status}, not finished; its Dice and joules are those of the submission")
    return runs[0]


def _constraints(pinned: Mapping[str, str]) -> str:
    """The content of constraints.txt."""
    head = f"# What greenseg {greenseg.__version__} was trained with; the image has the same versions."
    return "\n".join([head, *(f"{name}=={version}" for name, version in pinned.items()), ""])


def _copy_weights(folder: Path, to: Path) -> None:
    """Copy a model of the hub's cache. Its links become files: not every way to hand in a submission keeps links."""
    for part in ("refs", "snapshots"):
        if (folder / part).is_dir():
            shutil.copytree(folder / part, to / part)


def _about_weights(settings: Settings, copied: bool) -> list[str]:
    if settings.encoder_weights == "none" or copied:
        return []
    return [
        f"the pretrained weights of {settings.encoder} are not in this machine's cache; `docker build` loads them from "
        f"the Hugging Face hub"
    ]


def _about_device(settings: Settings) -> list[str]:
    if settings.accelerator != "cpu":
        return []
    return ["accelerator is cpu, as the run was started: it will leave the jury's GPUs idle; auto would use one"]
