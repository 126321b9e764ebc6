"""The folder of a submission: an image that trains the configuration of a run anew, and predicts with the result."""

import os
import shutil
import tempfile
from pathlib import Path

import greenseg
from greenseg import yamlfile
from greenseg.errors import UserError
from greenseg.export.e2mip.configuration import extras, for_the_jury
from greenseg.export.e2mip.dockerfile import dockerfile
from greenseg.export.e2mip.pins import pins
from greenseg.export.e2mip.readme import readme
from greenseg.export.e2mip.wheel import installed, wheel, wheel_name
from greenseg.models import weights
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Record
from greenseg.settings import Settings

_FILES = Path(__file__).parent / "files"
_TAG = "greenseg-e2mip"


def write_submission(path: Path, out: Path) -> list[str]:
    """Write the folder of a submission. It appears as a whole or not at all.

    Args:
        path: directory of a finished run.
        out: the folder to write; it must be new or empty.

    Returns:
        Sentences for the user.

    Raises:
        UserError: the challenge cannot run this configuration, the run is not finished, `out` is in use, or greenseg is
            not installed.
        OSError: the disk is full or the folder above `out` is not writable.
    """
    run = RunDirectory(path)
    record = _finished(run)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: exists; a submission needs a new folder")
    settings, notes = for_the_jury(run, record)
    needed = extras(settings)
    files: dict[str, bytes | str] = {
        wheel_name(): wheel(),
        "constraints.txt": _constraints(needed),
        "config.yaml": yamlfile.dump(settings.resolved()),
        **{file.name: file.read_text(encoding="utf-8") for file in sorted(_FILES.iterdir()) if file.is_file()},
    }
    cached = [] if settings.encoder_weights == "none" else weights.in_cache(settings.encoder, settings.encoder_weights)
    files["Dockerfile"] = dockerfile(settings, wheel_name(), needed, _TAG, bool(cached))
    files["README.md"] = readme(record, settings, notes, wheel_name(), _TAG)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        for name, content in files.items():
            file = temporary / name
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            file.chmod(0o755 if name in ("train.sh", "inference.sh") else 0o644)
        for folder in cached:
            _copy_weights(folder, temporary / "weights" / folder.name)
        temporary.chmod(0o755)
        _flush(temporary)
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return [*notes, *_about_weights(settings, bool(cached))]


def _finished(run: RunDirectory) -> Record:
    if not (run.path / "config.yaml").exists():
        raise UserError(f"{run.path}: not a run directory; a submission is made from a finished run")
    try:
        record = run.record()
    except BadRecord as error:
        raise UserError(str(error)) from None
    if record is None or record.status != "finished":
        status = run.status_by(record)
        raise UserError(f"{run.path}: is {status}, not finished; its Dice and joules are those of the submission")
    return record


def _constraints(needed: list[str]) -> str:
    """The content of constraints.txt."""
    found = pins(installed().requires or [], needed)
    head = f"# What greenseg {greenseg.__version__} was trained with; the image has the same versions."
    return "\n".join([head, *(f"{name}=={version}" for name, version in found.items()), ""])


def _copy_weights(folder: Path, to: Path) -> None:
    """Copy a model of the hub's cache. Its links become files: not every way to hand in a submission keeps links."""
    for part in ("refs", "snapshots"):
        if (folder / part).is_dir():
            shutil.copytree(folder / part, to / part)


def _flush(folder: Path) -> None:
    """Write files to the disk before their folder gets its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _about_weights(settings: Settings, copied: bool) -> list[str]:
    if settings.encoder_weights == "none" or copied:
        return []
    return [
        f"the pretrained weights of {settings.encoder} are not in this machine's cache; `docker build` loads them from "
        f"the Hugging Face hub"
    ]
