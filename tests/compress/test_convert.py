"""Trained networks in other engines and other numbers: what runs, what is refused, what a kill leaves."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from greenseg.compress.convert import convert
from greenseg.compress.program import onnx_program
from greenseg.compression import QUANTIZATIONS, RUNTIMES
from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.evaluation.of_network import predict_references
from greenseg.inference.load import load
from greenseg.inference.of_engine import EnginePredictor, predictor_for
from greenseg.inference.of_run import RunPredictor
from greenseg.inference.predictor import Options
from greenseg.inference.subject import Image, on_grid
from greenseg.machine import cpu, preflight
from greenseg.runs.directory import RunDirectory
from greenseg.settings import Settings
from tests.conftest import Command

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for about in RUNTIMES.values() for name in about.packages),
    reason="the extra 'compress' is not installed",
)

PLAIN = Options("32-true", "cpu")
ON_CPU = [
    (runtime, quantize)
    for runtime, about in RUNTIMES.items()
    for quantize in QUANTIZATIONS
    if about.on_cpu and quantize not in about.refuses
]
PRECISIONS = {"none": "32-true", "bf16": "bf16-true", "fp16": "16-true", "int8": "int8"}
NUMBERS = {"bf16": "BF16", "fp16": "FP16"}


@dataclass(frozen=True)
class Case:
    """A trained network, and slices for it.

    Attributes:
        run: directory of its run.
        original: the network.
        images: float32 [slices, 1, 32, 32], of a validation volume.
        training: the same, of the training volumes.
    """

    run: Path
    original: RunPredictor
    images: FloatArray
    training: FloatArray

    def calibration(self) -> Iterator[FloatArray]:
        for start in range(0, len(self.training), 8):
            yield self.training[start : start + 8]

    def settings(self, runtime: str, quantize: str) -> Settings:
        return Settings.of(self.original.settings.resolved() | {"runtime": runtime, "quantize": quantize})

    def child(self, folder: Path, runtime: str, quantize: str) -> Path:
        """The directory of a run for another engine or other numbers, still without its network."""
        shutil.copytree(self.run, folder, ignore=shutil.ignore_patterns("*.ckpt"))
        record = json.loads((folder / "run.json").read_text())
        record["settings"] |= {"runtime": runtime, "quantize": quantize}
        (folder / "run.json").write_text(json.dumps(record))
        return folder

    def converted(self, folder: Path, runtime: str, quantize: str) -> Path:
        run = self.child(folder, runtime, quantize)
        convert(self.original, self.settings(runtime, quantize), self.calibration, run / "checkpoints")
        return run


@pytest.fixture(scope="module")
def case(trained: Path, phantom: Path) -> Case:
    original = RunPredictor.of(trained, PLAIN)

    def slices(split: str) -> FloatArray:
        images = [Image.of([path], original.recipe) for path in sorted((phantom / split / "images").glob("*.nii.gz"))]
        return np.concatenate([on_grid([image], original.recipe) for image in images])

    return Case(trained, original, slices("validation_data"), slices("training_data"))


@pytest.fixture(scope="module", autouse=True)
def _exported_once() -> Iterator[None]:
    """The export to ONNX takes most of the time of a conversion, and gives the same program for all engines."""
    made: dict[str, Any] = {}

    def once(predictor: RunPredictor, remedy: str) -> Any:
        if predictor.name not in made:
            made[predictor.name] = onnx_program(predictor, remedy)
        return made[predictor.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("greenseg.compress.convert.onnx_program", once)
        yield


@pytest.fixture(scope="module")
def make(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Makes the run of an engine and numbers, once."""
    root = tmp_path_factory.mktemp("children")

    def of(runtime: str, quantize: str) -> Path:
        folder = root / f"{runtime}-{quantize}"
        return folder if folder.exists() else case.converted(folder, runtime, quantize)

    return of


def lacks(quantize: str) -> bool:
    return quantize in NUMBERS and NUMBERS[quantize] not in cpu.openvino_numbers()


@pytest.mark.parametrize(("runtime", "quantize"), ON_CPU)
def test_a_network_runs_in_an_engine_in_the_numbers_that_were_asked_for(
    runtime: str, quantize: str, make: Callable[[str, str], Path], case: Case
) -> None:
    if lacks(quantize):
        pytest.skip(f"this CPU lacks {quantize}")
    run = make(runtime, quantize)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted(RUNTIMES[runtime].files)
    predictor = load(run)
    assert isinstance(predictor, EnginePredictor)
    assert (predictor.precision, predictor.device) == (PRECISIONS[quantize], "cpu")
    assert predictor.recipe == case.original.recipe
    found, expected = predictor.probabilities(case.images), case.original.probabilities(case.images)
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max()
    assert difference < (1e-4 if quantize == "none" else 0.2)
    assert (difference > 1e-4) == (quantize != "none")  # other numbers are other numbers
    assert np.ptp(found) > 0.1
    assert (predictor.engine.int8_share > 0.5) == (quantize == "int8")
    single = predictor.probabilities(case.images[:1])  # batches of any size; kernels differ, and rounding amplifies it
    assert np.abs(single - found[:1]).mean() < (1e-6 if quantize == "none" else 0.03)


def test_half_precision_takes_half_the_bytes(make: Callable[[str, str], Path], case: Case) -> None:
    def size(run: Path, runtime: str) -> int:
        return RunDirectory(run).network(runtime)[-1].stat().st_size

    assert size(make("torch", "bf16"), "torch") < 0.6 * size(case.run, "torch")
    if not lacks("bf16"):
        assert size(make("openvino", "bf16"), "openvino") < 0.6 * size(make("openvino", "none"), "openvino")
    assert size(make("openvino", "int8"), "openvino") < 0.4 * size(make("openvino", "none"), "openvino")
    assert size(make("onnxruntime", "int8"), "onnxruntime") < 0.5 * size(make("onnxruntime", "none"), "onnxruntime")


def test_torch_computes_in_bfloat16(make: Callable[[str, str], Path], case: Case) -> None:
    predictor = load(make("torch", "bf16"))
    assert isinstance(predictor, RunPredictor)
    assert predictor.precision == "bf16-true"
    assert {value.dtype for value in predictor.module.parameters()} == {torch.bfloat16}
    difference = np.abs(predictor.probabilities(case.images) - case.original.probabilities(case.images)).max()
    assert 1e-5 < difference < 0.1


def test_the_masks_in_8_bits_are_those_of_a_script_without_greenseg(
    make: Callable[[str, str], Path], case: Case
) -> None:
    import onnxruntime
    import openvino

    onnx_run, openvino_run = make("onnxruntime", "int8"), make("openvino", "int8")
    session = onnxruntime.InferenceSession(
        str(onnx_run / "checkpoints" / "network.onnx"), providers=["CPUExecutionProvider"]
    )
    (by_onnxruntime,) = session.run(None, {session.get_inputs()[0].name: case.images})
    compiled = openvino.compile_model(
        str(openvino_run / "checkpoints" / "network.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for run, theirs in ((onnx_run, by_onnxruntime), (openvino_run, compiled(case.images)[0])):
        ours = load(run).probabilities(case.images)
        assert np.array_equal(ours > 0.5, theirs > 0.5)
        assert (ours > 0.5).any()
        assert (ours < 0.5).any()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_second_conversion_is_equal(
    runtime: str, make: Callable[[str, str], Path], case: Case, tmp_path: Path
) -> None:
    again = case.converted(tmp_path / "again", runtime, "int8")
    assert np.array_equal(
        load(again).probabilities(case.images), load(make(runtime, "int8")).probabilities(case.images)
    )


def test_predict_and_evaluate_take_a_converted_run(
    greenseg: Command, make: Callable[[str, str], Path], phantom: Path, tmp_path: Path
) -> None:
    run = make("openvino", "int8")
    image = min((phantom / "validation_data" / "images").glob("*.nii.gz"))
    done = greenseg("predict", run, "-i", image, "-o", "out")
    assert done.returncode == 0, done.stderr
    head = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert head["options"]["precision"] == "int8"
    assert (tmp_path / "out" / image.name).exists()
    (tmp_path / "masks").mkdir()
    assert len(predict_references(load(run), phantom, tmp_path / "masks").pairs) == 5

    with pytest.raises(UserError, match=r"--precision bf16-mixed: .* runs in int8"):
        load(run, Options("bf16-mixed"))
    with pytest.raises(UserError, match=r"--accelerator gpu: .* openvino, which runs on the CPU"):
        load(run, Options("", "gpu"))
    with pytest.raises(UserError, match="its network is converted for openvino"):
        RunPredictor.of(run, PLAIN)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_network_that_an_engine_does_not_take_is_refused_by_name(runtime: str, case: Case, tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.mean() > 0.5 else -images

    settings = case.settings(runtime, "none")
    branches = RunPredictor.running(
        Branches(), settings, case.original.recipe, torch.device("cpu"), "32-true", "branches", "branches"
    )
    why = rf"{settings.model}: torch.export cannot export this network: .*; it cannot run in {runtime}; use .*: torch"
    with pytest.raises(UserError, match=why):
        convert(branches, settings, case.calibration, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_beyond_the_numbers_is_refused(case: Case, tmp_path: Path) -> None:
    original = RunPredictor.of(case.run, PLAIN)
    parameter = next(original.module.parameters())
    parameter.data.flatten()[0] = 3.4e38  # of float32; bfloat16 rounds it up to infinity
    with pytest.raises(UserError, match="has weights that bf16 cannot represent"):
        convert(original, case.settings("torch", "bf16"), case.calibration, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "numbers", "expected"),
    [
        ({"quantize": "bf16", "runtime": "openvino"}, {"FP32", "INT8"}, "quantize bf16: this CPU lacks avx512_bf16"),
        ({"quantize": "fp16", "runtime": "openvino"}, {"FP32", "BF16"}, "quantize fp16: this CPU lacks avx512_fp16"),
        ({"quantize": "bf16", "runtime": "openvino"}, {"FP32", "BF16"}, ""),
        ({"quantize": "int8", "runtime": "openvino"}, set[str](), ""),
        ({"quantize": "fp16", "accelerator": "cpu"}, set[str](), "quantize fp16: torch computes it slowly on a CPU"),
        ({"quantize": "bf16", "accelerator": "cpu"}, set[str](), ""),
    ],
)
def test_numbers_that_this_machine_lacks_are_refused_before_anything_starts(
    values: dict[str, Any], numbers: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "openvino_numbers", lambda: frozenset(numbers))
    if not expected:
        preflight.check(Settings.of(values))
        return
    with pytest.raises(UserError, match=expected):
        preflight.check(Settings.of(values))


def test_torch_compile_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"runtime torch-compile: .* install g\+\+"):
        preflight.check(Settings.of({"runtime": "torch-compile", "accelerator": "cpu"}))


def test_a_file_that_runs_in_other_numbers_is_refused(
    make: Callable[[str, str], Path], case: Case, tmp_path: Path
) -> None:
    run = case.child(tmp_path / "run", "onnxruntime", "int8")
    with pytest.raises(UserError, match=r"has no network yet: no checkpoint network\.onnx"):
        load(run)
    shutil.copy(make("onnxruntime", "none") / "checkpoints" / "network.onnx", run / "checkpoints")
    with pytest.raises(UserError, match="runs it in 32-true on this CPU, not in int8"):
        load(run)
    (run / "checkpoints" / "network.onnx").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"network\.onnx: onnxruntime cannot read it"):
        load(run)
    run = case.child(tmp_path / "openvino", "openvino", "none")
    for name in RUNTIMES["openvino"].files:
        (run / "checkpoints" / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"network\.xml: OpenVINO cannot read it"):
        load(run)


def test_without_vnni_weights_have_7_bits(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    def largest(run: Path) -> int:
        model = onnx.load(run / "checkpoints" / "network.onnx")
        weights = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
        return max(int(np.abs(each.astype(int)).max()) for each in weights if each.dtype == np.int8 and each.ndim == 4)

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, expected, notes in (("avx2 avx512f", 64, 1), ("avx2 avx_vnni", 127, 0)):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} ssse3\n")
        monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
        run = case.converted(tmp_path / flags, "onnxruntime", "int8")
        assert expected - 1 <= largest(run) <= expected
        assert len([note for note in load(run).notes if "7 bits" in note]) == notes
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "missing")
    assert cpu.saturates_int8()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not cpu.saturates_int8()


KILLED = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from greenseg.compress.convert import convert
from greenseg.inference.of_run import RunPredictor
from greenseg.inference.predictor import Options
from greenseg.settings import Settings

def killed():
    yield np.random.default_rng(0).random((1, original.recipe.channels, *2 * [original.recipe.image_size]), np.float32)
    os.kill(os.getpid(), signal.SIGKILL)

parent, folder, settings = sys.argv[1:]
original = RunPredictor.of(Path(parent), Options("32-true", "cpu"))
convert(original, Settings.of(json.loads(settings)), killed, Path(folder))
"""


def test_a_kill_in_the_middle_leaves_no_network(case: Case, tmp_path: Path) -> None:
    run = case.child(tmp_path / "run", "onnxruntime", "int8")
    folder, settings = run / "checkpoints", case.settings("onnxruntime", "int8")
    # Not a fork of this process: its libraries have threads, and a child would wait for them for ever.
    arguments = [case.original.name, str(folder), json.dumps(settings.resolved())]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert [path for path in folder.iterdir() if not path.name.startswith(".")] == []
    with pytest.raises(UserError, match="has no network yet"):
        load(run)
    convert(case.original, settings, case.calibration, folder)
    assert [path.name for path in folder.iterdir()] == ["network.onnx"]
    found = predictor_for(RunDirectory(run), settings, case.original.recipe, Options())
    assert found.precision == "int8"


WATCHED = """
import socket, sys
from pathlib import Path

def refuse(*arguments, **options):
    print("network:", arguments)
    raise OSError("no network")

for name in ("create_connection", "getaddrinfo"):
    setattr(socket, name, refuse)
socket.socket.connect = refuse
from greenseg.machine import cpu
openvino = cpu.openvino()
import numpy as np
from openvino import opset13 as ops
x = ops.parameter([-1, 1, 8, 8], np.float32)
weights = np.ones((2, 1, 3, 3), np.float32)
y = ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
from greenseg.compress.convert import _in_8_bits
_in_8_bits(openvino.Model([y], [x]), lambda: iter([np.ones((2, 1, 8, 8), np.float32)]))
import nncf.telemetry.wrapper as wrapper
print("sends:", wrapper.telemetry is not wrapper.NNCFTelemetryStub and "openvino_telemetry.main" in sys.modules)
"""


SIGNALLED = """
import signal, sys
from pathlib import Path
from greenseg.inference.of_openvino import Network
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (Network(Path(path), "none") for path in sys.argv[1:])
for network in ("first", "second"):
    del globals()[network]
    signal.raise_signal(signal.SIGUSR1)
"""


def test_signals_are_handled_after_networks_have_come_and_gone(make: Callable[[str, str], Path]) -> None:
    """With a Core of its own for each network, the second signal killed the process on a CPU with AMX."""
    path = make("openvino", "none") / "checkpoints" / "network.xml"
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, path, path], capture_output=True, encoding="utf-8", timeout=600
    )
    assert (done.returncode, done.stdout) == (0, "handled\nhandled\n"), done.stderr


def test_a_conversion_makes_no_other_core(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.openvino_core()

    def another() -> None:
        raise AssertionError("another Core")

    monkeypatch.setattr(cpu.openvino(), "Core", another)
    case.converted(tmp_path / "child", "openvino", "int8")


def test_no_library_reports_its_use(tmp_path: Path) -> None:
    """In a process of its own: NNCF is silent under pytest anyway."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={name: value for name, value in os.environ.items() if name not in ("CI", "NNCF_CI")}
        | {"HOME": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "sends: False\n"), done.stderr
    assert not (tmp_path / "intel").exists()  # where OpenVINO keeps the identity of the user
