"""The file configs/inference.json of a bundle of MONAI."""

from typing import Any

from greenseg.inference.recipe import Recipe

_BATCH = 8  # slices at a time

_FILES = (
    "$[[case[: -len('0000.nii.gz')] + f'{channel:04d}.nii.gz' for channel in range(@channels)] "
    "for case in sorted(glob.glob(os.path.join(@dataset_dir, '*_0000.nii.gz')))]"
)
_FILE = "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))"

_SLICE_AXIS = (
    "$lambda n, mm: max([i for i in range(3) if n[i] == 1] or [i for i in range(3) if mm[i] >= 0.99 * max(mm)])"
)
_WHOLE = "$lambda step: (lambda m: m if step >= 1 else 1 / m)(max(1.0, float(round(max(step, 1 / step)))))"
_PLACE = (
    "$lambda n, mm: (lambda step, exact: ((n - @image_size * step) / 2, step) if abs(step / exact - 1) > 1e-3 else "
    "(math.floor((n - @image_size * exact) / 2 / min(1.0, exact) + 1e-3) * min(1.0, exact), exact))"
    "(@spacing / mm, @whole(@spacing / mm))"
)
_ORDER = (  # source axes of rows, columns and slices
    "$lambda x: (lambda a: [*[i for i in (2, 1, 0) if i != a], a])(@slice_axis(x.shape[1:], x.pixdim.tolist()))"
)
_PLANE = (  # of rows and of columns: number of pixels, start of the grid, distance of its pixels
    "$lambda x: [(x.shape[1 + i], *@place(x.shape[1 + i], float(x.pixdim[i]))) for i in @order(x)[:2]]"
)
_WEIGHTS = (
    "$lambda wanted, given, first, step: (lambda edges, index: "
    "np.clip((np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)) / step, 0, 1) if step >= 1 else "
    "(lambda centre: np.where((centre >= -0.5) & (centre < given - 0.5), "
    "np.clip(1 - np.abs(np.clip(centre, 0, given - 1) - index), 0, 1), 0))((edges[1:] + edges[:-1] - 1) / 2))"
    "(first + step * np.arange(wanted + 1)[:, None], np.arange(given))"
)
_AFFINE = (
    "$lambda x: (lambda order, plane: np.asarray(x.affine, np.float64).dot(np.array([*[[step * (axis == row) for "
    "axis, (_, _, step) in zip(order, [*plane, (0, 0, 1.0)])] + [sum((first + step / 2 - 0.5) * (axis == row) for "
    "axis, (_, first, step) in zip(order, plane))] for row in range(3)], [0, 0, 0, 1]])))(@order(x), @plane(x))"
)
_LIFTED = (
    "$lambda v: (lambda low, high: v if v.min() >= 0 or low >= 0 or -low <= 0.1 * (high - low) else "
    "np.where((v == 0) & ((v == 0).mean() > 0.1), np.float32(0), np.maximum(v - np.float32(low), 0)))"
    "(np.percentile(v, 0.5), np.percentile(v[v > 0], 99.5) if (v > 0).any() else 0.0)"
)
_WINDOWED = (
    "$lambda v, channel: (np.clip(v, *@windows[str(channel)]) - @windows[str(channel)][0]) / "
    "(@windows[str(channel)][1] - @windows[str(channel)][0]) if str(channel) in @windows else @lifted(v)"
)
_SCALED = (
    "$lambda v, channel: v if str(channel) in @windows or not (v > 0).any() else "
    "np.clip(v / np.percentile(v[v > 0], 99.5), 0, 1)"
)
_TO_GRID = (
    "$lambda v, order, plane: np.einsum('ri,ijs,cj->rcs', *[m.astype(np.float32) for m in ("
    "@weights(@image_size, *plane[0]), v.transpose(order), @weights(@image_size, *plane[1]))], optimize=True)"
)
_PREPARED = (
    "$lambda x: monai.data.MetaTensor(torch.as_tensor(np.stack([@scaled(@to_grid(@windowed(v, channel), @order(x), "
    "@plane(x)), channel) for channel, v in enumerate(np.asarray(x, np.float32))]).astype(np.float32)), "
    "affine=@affine(x))"
)
_BACK = (
    "$lambda pred, x: monai.utils.convert_to_dst_type(np.einsum('ir,orcs,jc->oijs', *[m.astype(np.float32) for m in ("
    "@to_file(*@plane(x)[0]), np.asarray(pred.cpu()), @to_file(*@plane(x)[1]))], optimize=True)"
    ".transpose(0, *[1 + i for i in np.argsort(@order(x))]), x, dtype=np.float32)[0]"
)
_TO_FILE = "$lambda n, first, step: @weights(n, @image_size, -first / step, 1 / step)"
_ONE = "$lambda x: (x > 0.5) * @labels[1]"
_SEVERAL = (
    "$lambda x: monai.utils.convert_to_dst_type(torch.tensor(@labels)[torch.cat([x[:1] + (1 - x.sum(0, keepdim=True))"
    ".clip(min=0), x[1:]]).argmax(0, keepdim=True).as_tensor()], x, dtype=torch.int32)[0]"
)


def inference(recipe: Recipe) -> dict[str, Any]:
    """The configuration of a workflow that segments a folder of NIfTI files.

    Args:
        recipe: recipe of the network.
    """
    labels = [0, *recipe.labels]
    kind = "uint8" if max(labels) < 256 else "uint16" if max(labels) < 65536 else "uint32"
    return {
        "imports": [
            "$import glob", "$import math", "$import os", "$import numpy as np", "$import torch",
            "$import monai",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/masks'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "image_size": recipe.image_size,
        "spacing": recipe.spacing,
        "channels": recipe.channels,
        "windows": {str(channel): [window.low, window.high] for channel, window in recipe.windows.items()},
        "labels": labels,
        "slice_axis": _SLICE_AXIS,
        "whole": _WHOLE,
        "place": _PLACE,
        "order": _ORDER,
        "plane": _PLANE,
        "weights": _WEIGHTS,
        "affine": _AFFINE,
        "lifted": _LIFTED,
        "windowed": _WINDOWED,
        "scaled": _SCALED,
        "to_grid": _TO_GRID,
        "to_file": _TO_FILE,
        "prepared": _PREPARED,
        "back": _BACK,
        "network_def": "$torch.jit.load(os.path.join(@bundle_root, 'models', 'model.ts'), map_location=@device).eval()",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "image_only": True, "ensure_channel_first": True,
                 "reader": "NibabelReader"},
                {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x[:1].clone()", "overwrite": "original"},
                {"_target_": "Lambdad", "keys": "image", "func": "@prepared"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': files} for files in @files]",
            "transform": "@preprocessing",
        },
        "files": _FILE if recipe.channels == 1 else _FILES,
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0,
        },
        "inferer": {
            "_target_": "SliceInferer", "roi_size": [recipe.image_size, recipe.image_size], "spatial_dim": 2,
            "sw_batch_size": _BATCH,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Lambda", "func": "$lambda d: {**d, 'pred': @back(d['pred'], d['original'])}"},
                {"_target_": "Lambdad", "keys": "pred", "func": _ONE if len(labels) == 2 else _SEVERAL},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "mask",
                 "output_dtype": f"$np.{kind}", "separate_folder": False, "resample": False},
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network_def", "inferer": "@inferer", "postprocessing": "@postprocessing", "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }  # fmt: skip
