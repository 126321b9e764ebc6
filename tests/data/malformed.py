"""Image files with something wrong in them, made by seed, and what greenseg makes of each.

`python -m tests.data.malformed FIRST COUNT` tries seeds FIRST to FIRST + COUNT - 1, in processes of their own, so that
one sees what takes a process down; the tests try a few.
"""

import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.data.check import check
from greenseg.errors import UserError
from greenseg.files import cache_folder
from greenseg.settings import Settings

FORMATS = (".nii", ".nii.gz", ".mha", ".packed.mha", ".mhd", ".nrrd", ".packed.nrrd", ".nhdr")
_TYPES = (np.uint8, np.int16, np.float32, np.float64)
_NUMBERS = (0, -1, 1, 2, 3, 5, 7, 255, 4096, 32767, -32768, 65536, 2**31 - 1, -(2**31), 2**63 - 1)
_REALS = (0.0, -1.0, float("nan"), float("inf"), 1e-45, 1e-30, 1e30, 3.4e38, -3.4e38, 353.5, 1e308)
_WORDS = (*map(str, _NUMBERS), *map(str, _REALS), "", "LOCAL", "LIST", "x.raw", "True", "MET_SHORT", "float", "gzip",
          "raw", "ascii", "8 8", "8 8 4 4", "99999 99999 1", "(1,0,0)", "none", "double", "block", "%03d.raw 1 9 1",
          "9" * 3000, "x" * 5000)  # fmt: skip
SECONDS, MEMORY = 20, 1 << 30  # that one file may take, and bytes above those of the program


def write(folder: Path, name: str, form: str, rng: random.Random) -> Path:
    """A small image that is all right, of a random type."""
    kind = rng.choice(_TYPES)
    array = np.random.default_rng(rng.randrange(1 << 30)).uniform(0, 100, (4, 9, 8)).astype(kind)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 4.0))
    path = folder / f"{name}.{form.rpartition('.')[2] if 'packed' in form else form.lstrip('.')}"
    sitk.WriteImage(image, str(path), useCompression="packed" in form)
    return path


# ── what is done to a file: bytes → bytes


def _bytes(content: bytes, rng: random.Random, upto: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(min(upto, len(changed)))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def _anywhere(content: bytes, rng: random.Random) -> bytes:
    return _bytes(content, rng, len(content))


def _in_the_header(content: bytes, rng: random.Random) -> bytes:
    return _bytes(content, rng, 352)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _longer(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice((1, 100, 5000)))


def _moved(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.randrange(1, 64)
    return content[:at] + (rng.randbytes(length) if rng.random() < 0.5 else b"") + content[at + length :]


def _nifti_field(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3))):
        if rng.random() < 0.5:
            number = rng.choice(_NUMBERS)
            struct.pack_into("<h", changed, rng.choice((*range(40, 56, 2), 70, 72, 74, 252, 254)),
                             (number + 2**15) % 2**16 - 2**15)  # fmt: skip
        else:
            real = max(-3.4e38, min(3.4e38, x)) if (x := rng.choice(_REALS)) not in (float("inf"),) else x
            struct.pack_into("<f", changed, rng.choice((*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4))), real)
    if rng.random() < 0.1:
        changed[344:348] = rng.choice((b"ni1\0", b"n+2\0", b"\0\0\0\0", b"n+1x"))
    return bytes(changed)


def _text_field(content: bytes, rng: random.Random) -> bytes:
    values = [m.span(1) for m in re.finditer(rb"(?:[:=] ?)([^\n=]*)\n", content[:700])]
    if not values:
        return _anywhere(content, rng)
    start, end = rng.choice(values)
    words = content[start:end].decode("latin-1").split(" ")
    words[rng.randrange(len(words))] = rng.choice(_WORDS)
    new = rng.choice(_WORDS) if rng.random() < 0.3 else " ".join(words)
    return content[:start] + new.encode() + content[end:]


def _text_line(content: bytes, rng: random.Random) -> bytes:
    head, rest = content[:400].split(b"\n"), content[400:]
    at = rng.randrange(len(head))
    head[at : at + 1] = rng.choice(([], [head[at]] * 2, [rng.choice(head)], [b"x" * 3000], [b""]))
    return b"\n".join(head) + rest


_ALWAYS = (_anywhere, _in_the_header, _cut, _longer, _moved)
_OWN: dict[str, tuple[Callable[[bytes, random.Random], bytes], ...]] = {
    "nii": (_nifti_field,) * 5,
    "text": (_text_field,) * 4 + (_text_line,),
}


def spoil(path: Path, rng: random.Random) -> str:
    """Change a file; returns how."""
    how = rng.choice(_ALWAYS + _OWN["nii" if ".nii" in path.name else "text"])
    content = path.read_bytes()
    if path.suffix == ".gz" and rng.random() < 0.7:  # what was wrong before it was packed
        path.write_bytes(gzip.compress(how(gzip.decompress(content), rng), mtime=0))
    else:
        path.write_bytes(how(content, rng))
    return how.__name__


# ── what comes of it


def attempt(seed: int, folder: Path) -> str:
    """Make a data set of two subjects, spoil a file of one, and do what `data check` and `train` do with it.

    Returns:
        `refused: …` or `taken`, after how it was spoilt.

    Raises:
        Exception: what a user would see as a traceback.
        AssertionError: wrong slices, or remains in the cache.
    """
    rng = random.Random(seed)
    form = FORMATS[seed % len(FORMATS)]
    root = folder / f"{seed}"
    files = {}
    for name in ("images/a", "masks/a_mask", "images/b", "masks/b_mask"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        files[name] = write(root, name, form if name.endswith("a") else ".nii", rng)
        if "mask" in name:
            image = sitk.ReadImage(str(files[name]))
            sitk.WriteImage(sitk.Cast(image > 50, sitk.sitkUInt8), str(files[name]), useCompression="packed" in form)
    how = spoil(files[rng.choice(("images/a", "images/a", "masks/a_mask"))], rng)
    found = check(root)
    json.dumps(asdict(found), allow_nan=False)
    before = {path.name for path in (cache_folder() / "slices").glob("*") if path.is_dir()}
    try:
        slices = cache.prepare(Settings.of({"data": str(root), "image_size": 32, "spacing": 1.5}))
    except UserError as error:
        problems = error.problems
    else:
        problems = []
    if problems:
        assert all(str(folder) in problem and "\n" not in problem for problem in problems), problems
        now = {path.name for path in (cache_folder() / "slices").glob("*") if path.is_dir()}
        assert now == before or "no foreground" in problems[0], "what was refused is cached"
        return f"{form} {how} refused: {problems[0].replace(str(root), '')}"
    assert not found.problems or "duplicate" in found.problems[0], f"train takes what check refuses: {found.problems}"
    assert np.isfinite(slices.images).all()
    assert slices.images.min() >= 0
    assert slices.images.max() <= 1
    assert slices.masks.max() <= 1
    return f"{form} {how} taken"


def main(first: int, count: int, folder: Path) -> None:
    """Attempt `count` seeds, a JSON line each; one that takes too long or too much memory ends the process."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for seed in range(first, first + count):
        signal.alarm(SECONDS)  # SIGALRM ends the process, even in the middle of a library
        try:
            outcome = attempt(seed, folder)
        except Exception:
            outcome = f"TRACEBACK {traceback.format_exc()}"
        shutil.rmtree(folder / str(seed), ignore_errors=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - own
        if peak > MEMORY:
            outcome = f"MEMORY {peak >> 20} MB: {outcome}"
        print(json.dumps([seed, outcome]), flush=True)
        if peak > MEMORY:
            return


def outcomes(first: int, count: int, folder: Path) -> Iterator[tuple[int, str]]:
    """Attempt `count` seeds in a process that is restarted whenever it was taken down."""
    seed = first
    while seed < first + count:
        arguments = [sys.executable, "-m", __spec__.name, str(seed), str(first + count - seed), str(folder)]
        environment = os.environ | {
            "GREENSEG_CACHE": str(folder / "cache"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        with subprocess.Popen(arguments, stdout=-1, stderr=-3, text=True, env=environment) as process:
            for line in process.stdout or ():
                seed, outcome = json.loads(line)
                yield seed, outcome
                seed += 1
        if process.returncode:
            yield seed, f"CRASH {process.returncode}"
            seed += 1


if __name__ == "__main__":
    if len(sys.argv) > 3:
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            for seed, outcome in outcomes(int(sys.argv[1]), int(sys.argv[2]), Path(scratch)):
                print(seed, outcome, flush=True)
