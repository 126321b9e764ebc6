"""The network of a run, in the engine that the run asks for."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from greenseg.compression import PRECISION, RUNTIMES
from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference import of_onnx, of_openvino
from greenseg.inference.of_run import Opened, RunPredictor, check_precision
from greenseg.inference.predictor import Options, Predictor
from greenseg.inference.recipe import Recipe
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings

_FEW = 0.5  # share of the layers below which a network counts as hardly quantized


@dataclass(frozen=True)
class Engine:
    """An engine with a network.

    Attributes:
        run: probabilities of a batch, see `Predictor.probabilities`.
        precision: the numeric precision that runs, by its Lightning name, or `int8`.
        int8_share: share of the convolutions and matrix products that run in 8 bits, from 0 to 1.
        notes: sentences for the user.
    """

    run: Callable[[FloatArray], FloatArray] = field(repr=False)
    precision: str
    int8_share: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class EnginePredictor:
    """The network of a run in another engine than torch, on the CPU; see `Predictor`.

    Attributes:
        settings: settings of the run.
        engine: the engine.
    """

    recipe: Recipe
    identity: str
    name: str
    precision: str
    settings: Settings = field(repr=False)
    engine: Engine
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    def probabilities(self, images: FloatArray) -> FloatArray:
        return self.engine.run(images)


def predictor_for(run: RunDirectory, settings: Settings, recipe: Recipe, options: Options) -> Predictor:
    """The network in a run directory whose record may be unfinished; see `predictor_of`."""
    return predictor_of(Opened(run, settings, recipe), options)


def predictor_of(opened: Opened, options: Options) -> Predictor:
    """The network of a run, in its engine.

    Raises:
        UserError: its file is damaged, a package is missing, or it cannot run with these options.
    """
    if not RUNTIMES[opened.runtime].on_cpu:
        return RunPredictor.of_opened(opened, options)
    check_precision(opened, options)
    if options.accelerator not in ("auto", "cpu"):
        raise UserError(
            f"--accelerator {options.accelerator}: the network of {opened.run.path} is converted for {opened.runtime}, "
            f"which runs on the CPU; use the run that it was converted from"
        )
    engine = open_file(opened.run.network(opened.runtime)[0], opened.runtime, opened.settings.quantize)
    return EnginePredictor(
        opened.recipe,
        opened.identity,
        str(opened.run.path),
        engine.precision,
        opened.settings,
        engine,
        notes=[*opened.notes, *engine.notes],
    )


def open_file(path: Path, runtime: str, quantize: str) -> Engine:
    """The network in a file of an engine.

    Args:
        path: the first of the files in `RUNTIMES`.
        runtime: the engine.
        quantize: the numbers of the network.

    Raises:
        UserError: a package is missing, the engine cannot read the file, or it runs in other numbers.
    """
    if importlib.util.find_spec(runtime) is None:
        raise UserError(f"{path}: needs {runtime}, in the extra 'compress': pip install 'greenseg[compress]'")
    engine = _OPEN[runtime](path, quantize)
    if engine.precision != PRECISION[quantize]:
        raise UserError(
            f"{path}: {runtime} runs it in {engine.precision} on this CPU, not in {PRECISION[quantize]}; predict on "
            f"another machine, or with the run that it was converted from"
        )
    return engine


def _onnxruntime(path: Path, quantize: str) -> Engine:
    session = of_onnx.session_of(path)
    share = of_onnx.int8_share(path) if quantize == "int8" else 0.0
    reduced = session.get_modelmeta().custom_metadata_map.get(of_onnx.REDUCED) == "true"
    notes = ["weights have 7 bits, because the CPU that converted them lacks VNNI"] if reduced else []
    return _judged(Engine(lambda images: of_onnx.run(session, images), "32-true", share, notes), quantize)


def _openvino(path: Path, quantize: str) -> Engine:
    network = of_openvino.Network(path, quantize)
    return _judged(Engine(network.probabilities, network.precision, network.int8_share), quantize)


def _judged(engine: Engine, quantize: str) -> Engine:
    """The engine with the precision int8 if any layer runs in it, and a note if few do."""
    if quantize != "int8" or not engine.int8_share:
        return engine
    few = f"only {engine.int8_share:.0%} of the convolutions and matrix products run in 8 bits on this CPU"
    notes = [*engine.notes, *([few] if engine.int8_share < _FEW else [])]
    return Engine(engine.run, "int8", engine.int8_share, notes)


_OPEN: dict[str, Callable[[Path, str], Engine]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
"""Name of an engine other than torch → the function that opens its file."""
