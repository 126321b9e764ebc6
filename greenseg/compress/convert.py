"""Converts the network of a finished run to another engine and to other numbers.

8-bit numbers are calibrated: the engine's own toolkit observes the activations of training slices, and derives their
scales. Weights have a scale per output channel, activations one whose range contains those of every slice. By default,
NNCF takes the mean of the ranges of all slices: with it, a resnet34-unet lost 0.11 of its Dice on T2W, which few
training slices have; with the ranges here, nothing (one run, 128 slices to calibrate). NNCF can also leave out the
outliers of each slice, which cost an attention-squeeze-unet 0.03 on DWI; onnxruntime cannot.
"""

import copy
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from greenseg.compress.program import INPUT, as_programs_run, difference, onnx_program, probes, silence
from greenseg.compression import PRECISION, RUNTIMES, engine
from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.inference.of_engine import Engine, open_file
from greenseg.inference.of_onnx import REDUCED
from greenseg.inference.of_run import RunPredictor
from greenseg.machine import cpu
from greenseg.settings import Settings

Calibration = Callable[[], Iterator[FloatArray]]
"""Returns batches of training slices, each float32 [n, channels, size, size], from 0 to 1, without augmentation."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_OUTLIERS = 1e-4  # share of the activations of a slice that may lie beyond the range of 8-bit numbers, on each side
_CONSTANT = 1e-6  # range of probabilities below which an output is constant
_VARIES = 0.1  # range of the original's probabilities from which on its copy may not be constant


def convert(original: RunPredictor, settings: Settings, calibration: Calibration, folder: Path) -> None:
    """Write the network of a finished run for `settings.runtime` and `settings.quantize`.

    The files get their names only when they are complete and were compared with the original: in float32, their
    probabilities differ by at most `ALLOWED`; in other numbers, they are finite and not constant.

    Args:
        original: the network of the run, in any precision, on any device; it does not change.
        settings: settings of the run to convert for; they were checked, as was this machine (`machine.preflight`).
        calibration: the training slices for 8-bit numbers.
        folder: `checkpoints/` of the run to convert for; files with a dot before their name are unfinished.

    Raises:
        UserError: a package is missing, the network cannot be converted, this CPU lacks the numbers, or the result is
            wrong.
        OSError: the disk is full, for instance.
    """
    runtime = engine(settings.runtime, settings.quantize)
    if missing := [name for name in RUNTIMES[runtime].packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"runtime {runtime}: needs {', '.join(missing)}: pip install 'greenseg[compress]'")
    files = RUNTIMES[runtime].files
    unfinished = [folder / f".{name}" for name in files]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if RUNTIMES[runtime].on_cpu:
            plain = _plain(original)
            with tempfile.TemporaryDirectory() as scratch:
                _WRITE[runtime](plain, settings.quantize, calibration, unfinished[0], Path(scratch))
            _check(plain, open_file(unfinished[0], runtime, settings.quantize), runtime, calibration)
        else:
            _write_weights(original, settings.quantize, unfinished[0])
            if settings.quantize != "none":
                _check(original, _in_torch(original, settings.quantize), runtime, calibration)
        _publish(unfinished, [folder / name for name in files])
    finally:
        for path in unfinished:  # frees space, since the disk may be full
            path.unlink(missing_ok=True)


def _publish(unfinished: list[Path], files: list[Path]) -> None:
    """Give complete files their names; the first is there only if the others are."""
    for path in unfinished:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if len(files) > 1:
        files[0].unlink(missing_ok=True)
    for path, name in zip(reversed(unfinished), reversed(files), strict=True):
        path.replace(name)


def _remedy(runtime: str) -> str:
    return f"it cannot run in {runtime}; use runtime: torch"


def _plain(original: RunPredictor) -> RunPredictor:
    """A copy of a network in float32 on the CPU."""
    module = copy.deepcopy(original.module)
    return as_programs_run(
        RunPredictor.running(
            module, original.settings, original.recipe, torch.device("cpu"), "32-true", original.identity, original.name
        )
    )


def _in_torch(original: RunPredictor, quantize: str) -> Engine:
    """A copy of a network in torch that computes with other numbers."""
    device = next(original.module.parameters()).device
    about = (original.recipe, device, PRECISION[quantize], original.identity, original.name)
    made = RunPredictor.running(copy.deepcopy(original.module), original.settings, *about)
    return Engine(made.probabilities, made.precision)


def _write_weights(original: RunPredictor, quantize: str, out: Path) -> None:
    """Write weights as `best.ckpt` has them, cast to the numbers of prediction.

    Raises:
        UserError: a weight is too large for these numbers.
    """
    state = {}
    for name, value in original.module.state_dict().items():
        cast = value.detach().cpu()
        if value.is_floating_point():
            cast = cast.to(_DTYPES.get(quantize, value.dtype))
        if not cast.isfinite().all():
            raise UserError(f"{original.settings.model}: {name} has weights that {quantize} cannot represent")
        state[f"network.{name}"] = cast.contiguous()
    torch.save({"state_dict": state}, out)


def _write_onnxruntime(plain: RunPredictor, quantize: str, calibration: Calibration, out: Path, scratch: Path) -> None:
    made = onnx_program(plain, _remedy("onnxruntime"))
    if quantize == "none":
        made.save(out, external_data=False)
        return
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        batches = calibration()

        def get_next(self) -> dict[str, FloatArray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: np.ascontiguousarray(batch, np.float32)}

    reduced = cpu.saturates_int8()
    plain_file, prepared = scratch / "plain.onnx", scratch / "prepared.onnx"
    made.save(plain_file, external_data=False)
    with silence("root"):
        quant_pre_process(str(plain_file), str(prepared), skip_symbolic_shape=True)
        q.quantize_static(
            str(prepared),
            str(out),
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduced,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=q.CalibrationMethod.MinMax,
        )
    _describe(out, reduced)


def _describe(path: Path, reduced: bool) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {REDUCED: str(reduced).lower()})
    onnx.save(model, path)


def _write_openvino(plain: RunPredictor, quantize: str, calibration: Calibration, out: Path, scratch: Path) -> None:
    openvino = cpu.openvino()
    plain_file = scratch / "plain.onnx"
    onnx_program(plain, _remedy("openvino")).save(plain_file, external_data=False)
    try:
        model = cpu.openvino_core().read_model(plain_file)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{plain.settings.model}: OpenVINO cannot convert it: {reason}; {_remedy('openvino')}"
        ) from error
    if quantize == "int8":
        model = _in_8_bits(model, calibration)
    # Weights of half precision take half the bytes; those beyond the range of float16 stay in float32.
    half = quantize in ("bf16", "fp16")
    openvino.save_model(model, out, compress_to_fp16=half)


def _in_8_bits(model: Any, calibration: Calibration) -> Any:
    """A model of OpenVINO with 8-bit numbers."""
    core = cpu.openvino_core()  # the only one; NNCF would make more
    with patch.object(cpu.openvino(), "Core", lambda: core), silence("nncf", "torch", "torch.utils.cpp_extension"):
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import AggregatorType, RangeEstimatorParameters, StatisticsType
        from nncf.quantization.range_estimator import StatisticsCollectorParameters as Collected

        nncf.set_log_level(40)  # errors only
        slices = [batch[n : n + 1] for batch in calibration() for n in range(len(batch))]
        fix = OverflowFix.ENABLE if cpu.saturates_int8() else OverflowFix.DISABLE
        ranges = RangeEstimatorParameters(
            Collected(StatisticsType.QUANTILE, AggregatorType.MIN, quantile_outlier_prob=_OUTLIERS),
            Collected(StatisticsType.QUANTILE, AggregatorType.MAX, quantile_outlier_prob=_OUTLIERS),
        )
        return nncf.quantize(
            model,
            nncf.Dataset(slices),
            subset_size=len(slices),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=fix, activations_range_estimator_params=ranges
            ),
        )


_WRITE = {"onnxruntime": _write_onnxruntime, "openvino": _write_openvino}
"""Name of an engine other than torch → the function that writes its files."""


def _check(original: RunPredictor, made: Engine, runtime: str, calibration: Calibration) -> None:
    """Compare a converted network with its original.

    Raises:
        UserError: in float32, it differs; in other numbers, it has no finite or no varying output.
    """
    if made.precision == "32-true":
        difference(original, made.run, _remedy(runtime))
        return
    ours, theirs = [], []
    for images in (*probes(original.recipe), *islice(calibration(), 1)):
        ours.append(original.probabilities(images))
        theirs.append(made.run(images))
    name = f"{original.settings.model}: its network in {made.precision} for {runtime}"
    if not all(np.isfinite(found).all() for found in theirs):
        raise UserError(f"{name} has outputs that are no numbers; use quantize: none")
    if _range(ours) > _VARIES and _range(theirs) < _CONSTANT:
        raise UserError(f"{name} has the same output for every pixel; use quantize: none")


def _range(found: list[FloatArray]) -> float:
    """The largest range of the probabilities of a class."""
    each = np.concatenate([np.moveaxis(one, 1, 0).reshape(one.shape[1], -1) for one in found], 1)
    return float((each.max(1) - each.min(1)).max())
