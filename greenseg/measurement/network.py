"""What a measurement says about the network: its engine, the engine's version, its size on disk."""

from importlib import metadata
from pathlib import Path

import torch

from greenseg.compression import engine
from greenseg.inference.predictor import Predictor
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import Record
from greenseg.settings import NEUTRAL, Settings

PACKAGES = {"torch": "torch", "torch-compile": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Engine → its package."""

FILES = {"onnxruntime": ("network.onnx", "network.onnx.data"), "openvino": ("network.xml", "network.bin")}
"""Engine → the files in the directory of a run that it predicts from. Others predict from the best checkpoint."""

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

    None if the directory has neither.
    """
    if files := [path for name in FILES.get(runtime, ()) for path in _found(run.path, name)]:
        return sum(path.stat().st_size for path in files)
    if not run.best_checkpoint.exists():
        return None
    state = torch.load(run.best_checkpoint, map_location="meta", weights_only=True)["state_dict"]
    own = (tensor for name, tensor in state.items() if name.startswith(_PREFIX))
    return sum(int(tensor.numel() * tensor.element_size()) for tensor in own)


def _found(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / "checkpoints" / name) if path.is_file()]
