"""`greenseg export`: files that give the masks of the run without greenseg."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from greenseg.compress.program import ALLOWED
from greenseg.data.grid import FloatArray
from greenseg.errors import UserError
from greenseg.export.formats import FORMATS, Request
from greenseg.export.network import Network
from greenseg.export.publish import published
from greenseg.inference.load import load
from greenseg.inference.predictor import Options
from tests.conftest import Command
from tests.export import TISSUES, make_run, mask_of, write_images

ONNX = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in FORMATS["onnx"].packages),
    reason="the extra 'onnx' is not installed",
)
MONAI = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("monai", "ignite")),
    reason="MONAI or pytorch-ignite is not installed",
)


def export(run: Path, out: Path, name: str) -> Path:
    """An export, without the command."""
    with published(out) as made:
        FORMATS[name].write(Request(run, run, "", out), made)
    return out


@pytest.fixture(scope="module")
def tissues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two channels, one of them CT, and two classes, one of them of two labels."""
    windows = {"1": [-200.0, 300.0]}
    return make_run(tmp_path_factory.mktemp("runs"), "enet", channels=2, classes=TISSUES, windows=windows)


@pytest.fixture(scope="module")
def program(tissues: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tissues, tmp_path_factory.mktemp("out") / "net.pt2", "torch")


@pytest.fixture(scope="module")
def bundle(tissues: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tissues, tmp_path_factory.mktemp("out") / "bundle", "monai-bundle")


def why(path: Path, options: Options | None = None) -> str:
    """The message that refuses a file."""
    with pytest.raises(UserError) as caught:
        load(path, options)
    return str(caught.value)


def example_in(markdown: Path) -> dict[str, Any]:
    """The names that the example in a description defines."""
    (code,) = re.findall(r"```python\n(.*?)```", markdown.read_text(encoding="utf-8"), re.DOTALL)
    assert not re.search(r"import greenseg|from greenseg", code)
    names: dict[str, Any] = {"__name__": "segment"}
    exec(compile(code, str(markdown), "exec"), names)
    return names


@ONNX
def test_the_command_exports_a_network_that_runs_from_its_file_alone(
    greenseg: Command, phantom: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "runs", "contextnet")
    said = greenseg("export", "runs", "net.onnx", "--pick", "best")
    assert said.returncode == 0, said.stderr
    assert "Wrote net.onnx, net.md, net.json" in said.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.json", "net.md", "net.onnx", "runs"]

    about = json.loads((tmp_path / "net.json").read_text(encoding="utf-8"))
    record = json.loads((run / "run.json").read_text())
    assert about["run"] == record["id"]
    assert about["validation_dice"] == record["metrics"]["dice"]
    assert about["input"]["shape"] == ["batch", 1, 32, 32]
    assert about["check"]["largest_difference"] <= about["check"]["allowed"] == 1e-4
    assert about["file"]["sha256"] == hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    assert about["file"]["opset"] == 18

    for beside in ("net.json", "net.md"):
        (tmp_path / beside).rename(tmp_path / f"moved {beside}")
    images = np.random.default_rng(0).random((5, 1, 32, 32), np.float32)
    ours, theirs = load(run), load(tmp_path / "net.onnx")
    assert theirs.recipe == ours.recipe
    assert theirs.identity == about["file"]["sha256"]
    assert np.abs(theirs.probabilities(images) - ours.probabilities(images)).max() < 1e-4

    for beside in ("net.json", "net.md"):
        (tmp_path / f"moved {beside}").rename(tmp_path / beside)
    image = min((phantom / "validation_data" / "images").glob("*.nii.gz"))
    example_in(tmp_path / "net.md")["main"](tmp_path / "net.onnx", [str(image)], str(tmp_path / "mask.nii.gz"))
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    expected = mask_of(run, [image])
    assert expected.any()
    assert (sitk.GetArrayFromImage(mask) == expected).mean() > 0.9999
    assert mask.GetDirection() == pytest.approx(sitk.ReadImage(str(image)).GetDirection())

    refused = greenseg("export", "runs", "net.onnx", "--pick", "best")
    assert refused.returncode == 2
    assert "net.onnx: exists already; --again replaces it" in refused.stderr


def test_the_example_equals_greenseg_on_oblique_slices_with_channels_in_two_scales(
    tissues: Path, program: Path, tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "images", channels=2)
    example_in(program.with_suffix(".md"))["main"](program, list(map(str, paths)), str(tmp_path / "mask.nii.gz"))
    mask, expected = sitk.ReadImage(str(tmp_path / "mask.nii.gz")), mask_of(tissues, paths)
    assert set(np.unique(expected)) >= {1, 2}
    assert (sitk.GetArrayFromImage(mask) == expected).mean() > 0.999
    image = sitk.ReadImage(str(paths[0]))
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-4)
    assert mask.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)


def test_a_torch_program_runs_in_plain_torch_and_greenseg_reads_it_back(tissues: Path, program: Path) -> None:
    images = np.random.default_rng(0).random((5, 2, 32, 32), np.float32)
    module = torch.export.load(program).module()
    plain = module(torch.from_numpy(images)).detach().numpy()
    assert plain.shape == (5, 3, 32, 32)
    assert np.abs(plain.sum(1) - 1).max() < 1e-5
    ours, theirs = load(tissues), load(program)
    assert np.abs(theirs.probabilities(images) - ours.probabilities(images)).max() < 1e-5
    assert theirs.recipe == ours.recipe
    assert (theirs.precision, theirs.device) == ("32-true", "cpu")
    assert "exported file, which runs in 32-true" in why(program, Options(precision="bf16-mixed"))


@MONAI
def test_a_bundle_runs_in_monai_and_gives_the_masks_of_greenseg(tissues: Path, bundle: Path, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", channels=2)
    import monai.bundle

    monai.bundle.run(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "images"),
        output_dir=str(tmp_path / "masks"),
    )
    mask = sitk.ReadImage(str(tmp_path / "masks" / "CASE_0000_mask.nii.gz"))
    expected = mask_of(tissues, paths)
    assert (sitk.GetArrayFromImage(mask) == expected).mean() > 0.999
    assert mask.GetOrigin() == pytest.approx(sitk.ReadImage(str(paths[0])).GetOrigin(), abs=1e-4)


def test_a_bundle_has_what_the_specification_asks_for(tissues: Path, bundle: Path) -> None:
    assert {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} == {
        "LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.pt",
        "models/model.ts",
    }  # fmt: skip
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata.keys() >= {
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
        "description", "authors", "copyright", "network_data_format",
    }  # fmt: skip
    for tensor in (
        *metadata["network_data_format"]["inputs"].values(),
        *metadata["network_data_format"]["outputs"].values(),
    ):
        assert tensor.keys() >= {
            "type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def",
        }  # fmt: skip
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background", "1": "csf", "2": "brain",
    }  # fmt: skip
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    Network.of(tissues).predictor.module.load_state_dict(weights)


def test_a_network_that_differs_is_not_published(tissues: Path, tmp_path: Path) -> None:
    network = Network.of(tissues)
    own = network.predictor.probabilities
    assert network.difference(own) == 0
    assert network.difference(lambda images: own(images) + np.float32(0.5 * ALLOWED)) <= ALLOWED

    def write_and_compare(run: Callable[[FloatArray], FloatArray]) -> None:
        with published(tmp_path / "net.pt2") as made:
            made.write_bytes(b"something")
            network.difference(run)

    for wrong in (
        lambda images: own(images) + np.float32(2 * ALLOWED),
        lambda images: own(images) * np.float32(np.nan),
        lambda images: own(images)[:1],
    ):
        with pytest.raises(UserError, match="differs from the original"):
            write_and_compare(wrong)
        assert list(tmp_path.iterdir()) == []


def test_only_what_an_export_wrote_is_replaced(greenseg: Command, tissues: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").touch()
    (tmp_path / "net.md").touch()
    (tmp_path / "folder.pt2").mkdir()
    for out, options, why in (
        ("data", ["--format", "monai-bundle", "--again"], "data: this folder is no earlier export"),
        ("net.pt2", [], "net.md: is there, but net.pt2 is not, so it belongs to another file"),
        ("net.onnx", ["--again"], "net.md: is there, but net.onnx is not, so it belongs to another file"),
        ("folder.pt2", ["--again"], "folder.pt2: this is a folder"),
        ("net.md", ["--format", "monai-bundle", "--again"], "net.md: this is a file"),
    ):
        said = greenseg("export", tissues, out, *options)
        assert (said.returncode, said.stdout) == (2, "")
        assert why in said.stderr
    (tmp_path / "net.pt2").touch()  # as an earlier export
    said = greenseg("export", tissues, "net.pt2", "--again")
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "net.md").read_text(encoding="utf-8").startswith("# net\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "folder.pt2", "net.json", "net.md", "net.pt2"]


def test_a_folder_without_a_network_is_refused(greenseg: Command, tmp_path: Path) -> None:
    said = greenseg("export", ".", "net.pt2")
    assert (said.returncode, said.stderr) == (2, "error: .: not a run directory\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs" / "train" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "train" / "run" / "config.yaml").touch()
    for folder in ("runs", "runs/train"):
        assert "use --pick best, knee or cheapest" in greenseg("export", folder, "net.pt2").stderr


def test_files_of_others_are_no_networks_of_greenseg(program: Path, tmp_path: Path) -> None:
    other = torch.export.export(torch.nn.Identity(), (torch.rand(1),))
    torch.export.save(other, tmp_path / "other.pt2")
    assert "other.pt2: has no description by greenseg" in why(tmp_path / "other.pt2")
    (tmp_path / "broken.pt2").write_bytes(program.read_bytes()[:5000])
    assert "broken.pt2: is not a program of torch.export, or is damaged" in why(tmp_path / "broken.pt2")
    (tmp_path / "net.txt").touch()
    assert ".onnx or .pt2" in why(tmp_path / "net.txt")

    described = json.loads(program.with_suffix(".json").read_text(encoding="utf-8"))
    for change, expected in (
        ({"version": 99, "greenseg": "9.9"}, "a later version of greenseg wrote it (9.9)"),
        ({"recipe": described["recipe"] | {"preprocessing": 1}}, "needs version 1 of the preprocessing"),
        ({"recipe": {}}, "its description is damaged"),
    ):
        text = json.dumps(described | change)
        torch.export.save(other, tmp_path / "changed.pt2", extra_files={"greenseg.json": text})
        assert expected in why(tmp_path / "changed.pt2")


@ONNX
def test_an_onnx_file_of_others_is_no_network_of_greenseg(tmp_path: Path) -> None:
    import onnx

    (tmp_path / "broken.onnx").write_bytes(b"no network")
    assert "broken.onnx: onnxruntime cannot read it" in why(tmp_path / "broken.onnx")
    shape = (
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]),
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]),
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", shape[:1], shape[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(made, tmp_path / "other.onnx")
    assert "other.onnx: has no description by greenseg" in why(tmp_path / "other.onnx")
    assert "--accelerator cuda: an ONNX file runs on the CPU" in why(
        tmp_path / "other.onnx", Options(accelerator="cuda")
    )


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, program: Path, tmp_path: Path) -> None:
    from greenseg.export.formats import format_for

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=re.escape("pip install 'greenseg[onnx]'")):
        format_for("onnx", tmp_path / "net.onnx")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match=re.escape("pip install 'greenseg[onnx]'")):
        load(tmp_path / "net.onnx")
