"""What a measurement says about the network: its engine, the engine's version, its size on disk."""

from importlib import metadata

import torch

from greenseg.compression import engine
from greenseg.inference.predictor import Predictor
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record
from greenseg.settings import NEUTRAL, Settings

PACKAGES = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Engine → its package."""

_PREFIX = "network."


def runtime_of(predictor: Predictor, record: Record) -> str:
    """The engine that runs: that of the predictor if it names one, else that of the run's settings."""
    settings = Settings.of(NEUTRAL | record.settings)
    return str(getattr(predictor, "runtime", "") or engine(settings.runtime, settings.quantize))


def version_of(runtime: str) -> str | None:
    """The version of an engine."""
    return metadata.version(PACKAGES[runtime]) if runtime in PACKAGES else None


def bytes_of(run: RunDirectory, runtime: str) -> int | None:
    """Size of a network on disk: of the files that its engine reads, of a checkpoint only the network's tensors.

    None if the directory lacks one.
    """
    files = run.network(runtime)
    if not all(path.is_file() for path in files):
        return None
    if files != (run.best_checkpoint,):
        return sum(path.stat().st_size for path in files)
    state = torch.load(run.best_checkpoint, map_location="meta", weights_only=True)["state_dict"]
    own = (tensor for name, tensor in state.items() if name.startswith(_PREFIX))
    return sum(int(tensor.numel() * tensor.element_size()) for tensor in own)
