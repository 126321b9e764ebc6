"""Finds the network of a run directory or of an exported file."""

import pkgutil
from pathlib import Path

from greenseg.errors import UserError
from greenseg.inference.of_engine import predictor_of
from greenseg.inference.of_run import Opened
from greenseg.inference.predictor import Options, Predictor

FILES = {
    ".onnx": "greenseg.inference.of_onnx:OnnxPredictor",
    ".pt2": "greenseg.inference.of_torch:TorchPredictor",
}
"""Suffix of a file → its predictor, as `module:name`."""


def load(path: Path, options: Options | None = None) -> Predictor:
    """The network of a run directory or of an exported file.

    Args:
        path: run directory, or a file that `greenseg export` wrote.
        options: the way it runs.

    Raises:
        UserError: it is not one of these, or it cannot run with these options.
    """
    options = options or Options()
    if path.is_dir():
        return predictor_of(Opened.of(path), options)
    if not path.exists():
        raise UserError(f"{path}: no such run directory or exported file")
    if path.suffix not in FILES:
        raise UserError(f"{path}: neither a run directory nor an exported file ({' or '.join(FILES)})")
    return pkgutil.resolve_name(FILES[path.suffix]).of(path, options)  # type: ignore[no-any-return]
