"""The description inside an exported file: everything that its prediction needs besides the weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from greenseg.data import PREPROCESSING
from greenseg.errors import UserError
from greenseg.inference.predictor import Options
from greenseg.inference.recipe import Recipe

KEY = "greenseg"
"""Name of the description in the metadata of an ONNX file."""

FILE = "greenseg.json"
"""Name of the description among the extra files of a torch program."""

VERSION = 1
"""Version of the description. Raise it if older readers would misunderstand it."""

PRECISION = "32-true"
"""The only precision of exported files."""


@dataclass(frozen=True)
class Described:
    """What prediction reads from the description.

    Attributes:
        recipe: preparation of the input, meaning of the output.
        network: name of the network.
    """

    recipe: Recipe
    network: str


def read(path: Path, text: str) -> Described:
    """The description of a file.

    Args:
        path: the file, for messages.
        text: its description; empty if it has none.

    Raises:
        UserError: it has none, a later version of greenseg wrote it, or its preprocessing is another one.
    """
    if not text:
        raise UserError(f"{path}: has no description by greenseg; only files from `greenseg export` can be used")
    try:
        value = json.loads(text)
        version, writer = int(value["version"]), str(value["greenseg"])
        if version > VERSION:
            raise UserError(f"{path}: a later version of greenseg wrote it ({writer}); update greenseg")
        described = Described(Recipe.from_json(value["recipe"]), str(value["network"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its description is damaged: {error}") from None
    if described.recipe.preprocessing != PREPROCESSING:
        raise UserError(
            f"{path}: needs version {described.recipe.preprocessing} of the preprocessing, this greenseg has version "
            f"{PREPROCESSING}; use greenseg {writer}, or export the network again"
        )
    return described


def check_options(path: Path, options: Options) -> None:
    """Check the precision that a file is to run with.

    Raises:
        UserError: it is not that of exported files.
    """
    if options.precision not in ("", PRECISION):
        raise UserError(
            f"--precision {options.precision}: {path.name} is an exported file, which runs in {PRECISION}; leave "
            f"--precision out, or predict with the run directory"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
