"""Export as a bundle of MONAI: https://docs.monai.io/en/stable/mb_specification.html.

The network is TorchScript, so that it runs without the code that made it. MONAI's own transforms prepare the images;
`bundle_inference` gives them the rules of `greenseg.data` as expressions.
"""

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from greenseg import model_names as names
from greenseg.compress.program import refusal
from greenseg.errors import UserError
from greenseg.export import description
from greenseg.export.bundle_inference import inference
from greenseg.export.formats import Request
from greenseg.export.network import REMEDY, Network, versions
from greenseg.inference.of_torch import run
from greenseg.inference.recipe import Recipe

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_TESTED = {"monai": "1.5.0", "numpy": "1.26.0", "nibabel": "5.0", "pytorch-ignite": "0.5.0"}
"""Versions that are named where the package is not installed."""

_TITLE = "Segmentation of {} by {}"


def write(request: Request, out: Path) -> list[str]:
    """Write the network of a run as a bundle; see `Write` in `greenseg.export.formats`.

    Raises:
        UserError: the run has no network, torch cannot make TorchScript of it, or the copy differs from it.
    """
    network = Network.of(request.run)
    value = description.description(network)
    for folder in ("configs", "docs", "models"):
        (out / folder).mkdir(parents=True)
    difference = _write_script(network, out / "models" / "model.ts")
    value["check"] = description.checked(difference, "models/model.ts, loaded from the file")
    torch.save(network.predictor.module.state_dict(), out / "models" / "model.pt")
    recipe = network.predictor.recipe
    _write(out / "configs" / "metadata.json", metadata(network, value))
    _write(out / "configs" / "inference.json", inference(recipe))
    (out / "docs" / "README.md").write_text(_readme(network, value), encoding="utf-8")
    (out / "LICENSE").write_text(_LICENSE, encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return [
        f"{network.name}: {size / 1e6:.1f} MB; its probabilities differ from the original's by at most "
        f"{difference:.1e} (allowed: {value['check']['allowed']:g})",
        f"Run it with `python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES` in "
        f"{request.out}",
        *network.predictor.notes,
    ]


def _write_script(network: Network, path: Path) -> float:
    """Write TorchScript of a network; returns its largest difference from the network.

    torch.jit traces the network itself, or its program: some networks have code that it cannot trace (ENet), and some
    programs have the batch size in them.

    Raises:
        UserError: neither can be traced and equals the network.
    """
    refused: UserError | None = None
    for module in (network.module, lambda: network.program().module()):
        try:
            with warnings.catch_warnings(action="ignore"), torch.no_grad():
                script = torch.jit.trace(module(), network.example(), check_trace=False)  # type: ignore[no-untyped-call]
                script.save(str(path))
                loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
            return network.difference(partial(run, loaded, device=torch.device("cpu")))
        except UserError as error:
            refused = error
        except (RuntimeError, TypeError) as error:
            refused = refusal(f"{network.name}: torch.jit cannot make TorchScript of this network", error, REMEDY)
    assert refused is not None
    raise refused


def metadata(network: Network, value: dict[str, Any]) -> dict[str, Any]:
    """The content of configs/metadata.json."""
    recipe = network.predictor.recipe
    found = _TESTED | versions(*_TESTED)
    shape = [recipe.image_size, recipe.image_size]
    what = ", ".join(recipe.classes.names)
    title = _TITLE.format(what, network.name)
    tensor = {"spatial_shape": shape, "dtype": "float32", "value_range": [0, 1], "is_patch_data": False}
    modality = "CT" if len(recipe.windows) == recipe.channels else "MR"
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by greenseg {value['greenseg']}"},
        "monai_version": found["monai"],
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": found["numpy"],
        "required_packages_version": {package: found[package] for package in ("nibabel", "pytorch-ignite")},
        "supported_apps": {},
        "name": title,
        "task": title,
        "description": f"A 2D network that segments {what} slice by slice, trained with greenseg",
        "authors": "not given",
        "copyright": "not given",
        "data_type": "nibabel",
        "image_classes": f"{recipe.channels} channel(s), from 0 to 1",
        "label_classes": ", ".join(
            ["0 = background", *(f"{n} = {c}" for c, n in zip(recipe.classes.names, recipe.labels, strict=True))]
        ),
        "pred_classes": value["output"]["meaning"],
        "eval_metrics": {} if value["validation_dice"] is None else {"mean_dice": value["validation_dice"]},
        "intended_use": "research; it is not a medical device",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield" if modality == "CT" else "magnitude",
                    "modality": modality,
                    "num_channels": recipe.channels,
                    **tensor,
                    "channel_def": {str(number): f"channel {number + 1}" for number in range(recipe.channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": network.outputs,
                    **tensor,
                    "channel_def": {str(number): name for number, name in enumerate(description.channels(recipe))},
                }
            },
        },
        "network": _construction(network),
        "greenseg": value,
    }


def _construction(network: Network) -> dict[str, Any]:
    """How to make the network that models/model.pt has the weights of."""
    settings, recipe = network.predictor.settings, network.predictor.recipe
    if settings.decoder in names.NETWORKS:
        return {
            "_target_": f"greenseg.models.light.{names.NETWORKS[settings.decoder]}",
            "in_channels": recipe.channels,
            "classes": network.outputs,
            "width": settings.width,
        }
    return {
        "_target_": f"segmentation_models_pytorch.{names.DECODERS[settings.decoder]}",
        "encoder_name": settings.encoder,
        "encoder_weights": None,
        "in_channels": recipe.channels,
        "classes": network.outputs,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


_LICENSE = """No license was chosen for these weights when they were exported. Their author decides who may use them.

The files in configs/ were made by greenseg and are under the Apache License 2.0,
https://www.apache.org/licenses/LICENSE-2.0
"""


def _channels(recipe: Recipe) -> str:
    if recipe.channels == 1:
        return "Every .nii.gz file in the folder IMAGES is a volume."
    last = recipe.channels - 1
    return (
        f"The channels of a volume are the files CASE_0000.nii.gz … CASE_{last:04d}.nii.gz in the folder IMAGES, as in "
        f"nnU-Net."
    )


def _readme(network: Network, value: dict[str, Any]) -> str:
    recipe = network.predictor.recipe
    dice = "unknown" if value["validation_dice"] is None else f"{value['validation_dice']:.4f}"
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(value["preprocessing"], 1))
    after = "\n".join(f"{number}. {step}" for number, step in enumerate(value["postprocessing"], 1))
    return f"""# {_TITLE.format(", ".join(recipe.classes.names), network.name)}

A bundle of MONAI, exported by greenseg {value["greenseg"]} from the run `{value["run"]}`. Dice on the validation
subjects of the run: {dice}. It is not a medical device.

## Use

    pip install "monai[nibabel,ignite,fire]"
    python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir MASKS

Start it in this folder, or add `--bundle_root FOLDER`. {_channels(recipe)} Each mask has the geometry of its image.

`models/model.ts` is TorchScript: float32 [slices, {recipe.channels}, {recipe.image_size}, {recipe.image_size}] from 0
to 1 → {value["output"]["meaning"]}. `models/model.pt` has its weights for the network in `configs/metadata.json`, whose
outputs are logits.

`monai.bundle verify_metadata` downloads the schema that `configs/metadata.json` names.

## Preprocessing in training

{steps}

## From the output to a mask

{after}

## Differences

`configs/inference.json` has these rules as expressions in MONAI's own transforms, so that its masks equal those of
greenseg, up to rounding, with two exceptions: it reads volumes in NIfTI files only, and each volume has its own scale
of intensities. In greenseg, all images of a subject share one.
"""
