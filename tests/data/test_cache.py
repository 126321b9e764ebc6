"""The slice cache: named by content, made once, whole or not there."""

import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data import cache
from greenseg.data.loader import SliceDataset
from greenseg.data.splits import scan
from greenseg.errors import UserError
from greenseg.settings import Settings
from tests import warm
from tests.conftest import SMALL, Command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GREENSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slices"


def volumes(root: Path, count: int = 3, suffix: str = ".nii.gz", brain: int = 1) -> Path:
    """Small volumes with a box of brain."""
    rng = np.random.default_rng(0)
    mask = np.zeros((5, 16, 16), np.uint8)
    mask[1:4, 4:12, 4:12] = brain
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        for path, array in ((f"images/s{number}", rng.uniform(1, 9, mask.shape)), (f"masks/s{number}_mask", mask)):
            image = sitk.GetImageFromArray(array.astype(np.float32) if "images" in path else array)
            image.SetSpacing((4.0, 4.0, 6.0))
            sitk.WriteImage(image, str(root / f"{path}{suffix}"))
    return root


def settings_for(data: Path, **changes: Any) -> Settings:
    return Settings.of({"data": str(data), "image_size": 32, "spacing": 4.0} | changes)


def prepare(data: Path, verify: bool = False, **changes: Any) -> cache.Slices:
    return cache.prepare(settings_for(data, **changes), verify=verify)


# ── named by content


def test_a_copy_and_a_touch_keep_the_cache(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    first = prepare(data)
    assert first.built
    for path in data.rglob("*.gz"):
        os.utime(path, (1, 1))
    assert not prepare(data).built
    shutil.copytree(data, tmp_path / "copy")
    copy = prepare(tmp_path / "copy")
    assert (copy.built, copy.folder) == (False, first.folder)
    assert copy.cases[0].files[0][0].is_relative_to(tmp_path / "copy")


def test_the_split_and_the_folds_share_one_cache(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 6)
    first = prepare(data)
    same: list[dict[str, Any]] = [
        {"split_seed": 5},
        {"folds": 3, "fold": 2},
        {"validation_share": 0.5},
        {"drop_empty_slices": 1.0},
    ]
    other: list[dict[str, Any]] = [{"spacing": 3.0}, {"image_size": 64}, {"labels": "1"}]
    for changes in same:
        again = prepare(data, **changes)
        assert (again.built, again.folder) == (False, first.folder)
    assert [s["name"] for s in again.subjects("validation")] != []
    for changes in other:
        assert prepare(data, **changes).built


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_values_beside_a_header_count(suffix: str, elsewhere: bool, home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", suffix=suffix)
    values = next(path for path in (data / "images").iterdir() if path.suffix != suffix)
    if elsewhere:  # under a name, and in a folder, of its own
        header = values.with_suffix(suffix)
        (data / "values").mkdir()
        values = values.rename(data / "values" / "other.bin")
        header.write_bytes(header.read_bytes().replace(b"s0.raw", b"../values/other.bin").replace(
            f"{header.stem}.raw".encode(), b"../values/other.bin"))  # fmt: skip
    first = prepare(data)
    content = bytearray(values.read_bytes())
    content[3], content[7] = content[7] ^ 1, content[3]
    values.write_bytes(content)
    second = prepare(data)
    assert second.built
    assert second.folder != first.folder


def test_values_of_the_same_size_and_time_are_noticed(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", suffix=".nii")
    path = next((data / "images").iterdir())
    first, stamp = prepare(data), path.stat()
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert prepare(data).folder != first.folder


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": [1, 2, 3]}', "null", "\0\0\0"])
def test_damaged_memory_of_fingerprints_is_forgotten(content: str, home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    first = prepare(data)
    (memo,) = (home.parent / "fingerprints").iterdir()
    memo.write_text(content)
    assert prepare(data).folder == first.folder


# ── made once


def test_several_processes_make_it_once(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 8)
    code = "import sys, json; from greenseg.settings import Settings; from greenseg.data import cache\n"
    code += "print(cache.prepare(Settings.of(json.loads(sys.argv[1]))).built)"
    wanted = json.dumps({"data": str(data), "image_size": 256, "spacing": 0.5})
    racing = [warm.Popen([sys.executable, "-c", code, wanted], stdout=-1, text=True) for _ in range(4)]
    built = [process.communicate(timeout=600)[0].strip() for process in racing]
    assert sorted(built) == ["False"] * 3 + ["True"]


# ── whole, or not there


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 255]))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


@pytest.mark.parametrize("name", ["images.f32", "masks.u8", "native.z", "index.json"])
@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_damage_is_noticed_and_repaired(damage: Callable[[Path], None], name: str, home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    first = prepare(data)
    good = first.images.copy(), first.masks.copy(), first.native.copy()
    damage(first.folder / name)
    # A run looks at sizes only: the command that starts it has compared the bytes.
    again = prepare(data, verify=damage is _flip and name != "index.json")
    assert again.built
    for one, other in zip(good, (again.images, again.masks, again.native), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_command_compares_bytes(greenseg: Command, tmp_path: Path) -> None:
    data, own = volumes(tmp_path / "data"), {"GREENSEG_CACHE": str(tmp_path / "cache")}
    options = ["train", "--data", data, *SMALL, "--epochs", "1"]
    first = greenseg(*options, **own)
    assert first.returncode == 0, first.stderr
    assert "Prepared 15 slices of 32×32" in first.stdout
    (images,) = (tmp_path / "cache" / "slices").rglob("images.f32")
    _flip(images)
    assert "Prepared 15 slices" in greenseg(*options, "--seed", "1", **own).stdout
    assert "Prepared" not in greenseg(*options, "--seed", "2", **own).stdout


def test_a_preparation_that_was_killed_leaves_nothing_that_is_used(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 4)
    code = "import sys, json, time; from greenseg.settings import Settings; from greenseg.data import cache\n"
    code += (
        "cache.prepare(Settings.of(json.loads(sys.argv[1])), progress=lambda done, total: time.sleep(done > 2 and 60))"
    )
    wanted = json.dumps({"data": str(data), "image_size": 32, "spacing": 4.0})
    process = warm.Popen([sys.executable, "-c", code, wanted])
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in home.glob(".*/images.f32")) and time.monotonic() < deadline:
        time.sleep(0.05)
        if list(home.glob(".*")):
            time.sleep(0.5)
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(home.glob(".*")), "it was killed half-way"
    assert list(cache.cached()) == []
    assert prepare(data).built
    assert not list(home.glob(".*"))


def test_what_is_wrong_with_data_leaves_nothing(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    (data / "images" / "s2.nii.gz").write_bytes(b"nothing")
    (data / "masks" / "s1_mask.nii.gz").write_bytes(b"nothing")
    with pytest.raises(UserError) as caught:
        prepare(data)
    assert len(caught.value.problems) == 2
    assert [path for path in home.iterdir() if path.is_dir()] == []


def test_how_far_apart_slices_are(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    (apart,) = {tuple(map(repr, subject["volumes"])) for subject in prepare(data).index["subjects"]}
    assert apart == (repr({"slices": 5, "distance": 6.0}),)
    # The same slices, a file each: the first subject's as volumes of one slice, the second's as images of two axes.
    lines = ["image,mask,subject"]
    for number, flat in ((0, False), (1, True), (2, False)):
        whole = [sitk.ReadImage(str(data / f"{kind}{number}{end}")) for kind, end in (
            ("images/s", ".nii.gz"), ("masks/s", "_mask.nii.gz"))]  # fmt: skip
        for z in range(5):
            names = [tmp_path / f"{what}{number}_{z}.nii" for what in ("i", "m")]
            for image, name in zip(whole, names, strict=True):
                sitk.WriteImage(image[:, :, z] if flat else image[:, :, z : z + 1], str(name))
            lines.append(f"{names[0]},{names[1]},{number}")
    (tmp_path / "slices.csv").write_text("\n".join(lines))
    singles = {s["name"]: s["volumes"] for s in prepare(tmp_path / "slices.csv").index["subjects"]}
    assert singles["0"] == [{"slices": 5, "distance": 6.0}], "one volume"
    assert singles["1"] == [{"slices": 5, "distance": None}], "an image of two axes does not say"


def test_labels_that_no_mask_holds_are_refused(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", brain=3)
    with pytest.raises(
        UserError, match=r"no foreground in any training slice with labels 2 \(s0, .*\); `greenseg data check` lists"
    ):
        prepare(data, labels="2")
    assert prepare(data, labels="2,3").masks.any()


def test_brain_that_the_grid_loses_is_not_said_to_be_missing(home: Path, tmp_path: Path) -> None:
    """Pixels of 0.02 mm on a grid of 1.5 mm: `no foreground in any training slice` was not so."""
    data = volumes(tmp_path / "data")
    for path in data.rglob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        image.SetSpacing((0.02, 0.02, 0.05))
        sitk.WriteImage(image, str(path))
    with pytest.raises(UserError) as caught:
        prepare(data, spacing=1.5)
    problem = caught.value.problems[0]
    assert "no foreground is left on 32×32 pixels of 1.5 mm" in problem
    assert "0.02 mm wide" in problem
    assert prepare(data, spacing=0.02).masks.sum() == 3 * 3 * 8 * 8


def test_an_image_of_which_the_grid_keeps_nothing_is_refused(home: Path, tmp_path: Path) -> None:
    """Of the mask it keeps brain, so that nothing could be learned, in silence."""
    data = volumes(tmp_path / "data")
    for path in (data / "images").iterdir():
        image = sitk.ReadImage(str(path))
        image = sitk.ConstantPad(image * 0, (40, 40, 0), (40, 40, 0))
        image[0, 0, 0] = 100
        sitk.WriteImage(image, str(path))
    for path in (data / "masks").iterdir():
        sitk.WriteImage(sitk.ConstantPad(sitk.ReadImage(str(path)), (40, 40, 0), (40, 40, 0)), str(path))
    with pytest.raises(UserError) as caught:
        prepare(data)
    assert len(caught.value.problems) == 3
    assert "is 0 on the grid of 32×32 pixels" in caught.value.problems[0]


@pytest.mark.parametrize("named", [".hdr", ".img"])
@pytest.mark.parametrize("changed", [".hdr", ".img"])
def test_both_files_of_a_pair_count_whichever_is_named(named: str, changed: str, home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", suffix=".hdr")
    lines = [f"data/images/s{n}{named},data/masks/s{n}_mask{named}" for n in range(3)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,mask", *lines]))
    first = prepare(tmp_path / "cases.csv")
    content = bytearray((data / f"images/s0{changed}").read_bytes())
    content[148] ^= 1  # in the header's description, or a value
    (data / f"images/s0{changed}").write_bytes(content)
    assert prepare(tmp_path / "cases.csv").folder != first.folder


def test_nobody_validates_without_brain(home: Path, tmp_path: Path) -> None:
    """A run would train to its end and be ranked with a Dice of 0."""
    data = volumes(tmp_path / "data", 4)
    folds = [{case.subject for case in scan(data, folds=2, fold=fold) if case.split == "validation"} for fold in (0, 1)]
    for subject in folds[1]:
        path = data / "masks" / f"{subject}_mask.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(path)) * 0, str(path))
    with pytest.raises(
        UserError, match=rf"{data}: no foreground in any validation slice of fold 1 \(s.*\); check their masks"
    ):
        prepare(data, folds=2, fold=1)
    with pytest.raises(UserError, match=rf"{data}: no foreground in any training slice of fold 0 \("):
        prepare(data, folds=2, fold=0)
    with pytest.raises(UserError, match=r"image_size 32 × spacing 0.125 mm cuts it off; raise either"):
        prepare(corner(tmp_path / "corner"), spacing=0.125)


def corner(root: Path) -> Path:
    """Volumes whose brain lies in a corner."""
    data = volumes(root)
    for path in (data / "masks").iterdir():
        mask = np.zeros((5, 16, 16), np.uint8)
        mask[1:4, 12:, 12:] = 1
        moved = sitk.GetImageFromArray(mask)
        moved.SetSpacing((4.0, 4.0, 6.0))
        sitk.WriteImage(moved, str(path))
    return data


def test_an_ignored_label_is_no_brain(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    for path in (data / "masks").iterdir():
        mask = sitk.ReadImage(str(path))
        mask[0:3, 0:3, 0:3] = 2
        sitk.WriteImage(mask, str(path))
    lines = [f"{data}/images/s{n}.nii.gz,{data}/masks/s{n}_mask.nii.gz,s{n}" for n in range(3)]
    (tmp_path / "all.csv").write_text("image,mask,subject\n" + "\n".join(lines))
    (tmp_path / "ignore.csv").write_text("image,mask,subject,ignore\n" + "\n".join(f"{line},2" for line in lines))
    every, without = prepare(tmp_path / "all.csv"), prepare(tmp_path / "ignore.csv")
    assert every.folder != without.folder, "the same files, but other masks"
    assert every.content
    assert without.content
    assert every.content.files != without.content.files
    assert np.bincount(every.masks.ravel()).nonzero()[0].tolist() == [0, 1]
    assert np.bincount(without.masks.ravel()).nonzero()[0].tolist() == [0, 1, 255]
    assert (int(every.masks.sum()), int((without.masks == 1).sum())) == (3 * (3 * 64 + 27), 3 * 3 * 64)
    assert (every.has_ignored, without.has_ignored, without.index["ignored"]) == (False, True, 3 * 27)
    assert [subject["pixels"] for subject in without.index["subjects"]] == [[3 * 64]] * 3
    with pytest.raises(UserError, match="label 2 is 'ignore'"):
        prepare(tmp_path / "ignore.csv", labels="1,2")
    (tmp_path / "wrong.csv").write_text("image,mask,subject,ignore\n" + "\n".join(f"{line},void" for line in lines))
    with pytest.raises(UserError, match="ignore 'void' is not valid"):
        prepare(tmp_path / "wrong.csv")


def test_a_full_disk_is_said_with_the_remedy_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    code = "import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
    code += "from greenseg.cli import main; main()"
    result = warm.run(
        [sys.executable, "-c", code, "train", "--data", str(data), *SMALL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert result.returncode == 3, "the disk is full"
    assert result.stderr.startswith(
        f"error: {home}: File too large: no space for the slice cache, 5 kB per slice; free some"
    )
    assert [path for path in home.iterdir() if path.is_dir()] == []
    assert not (tmp_path / "runs").exists()


def test_no_space_left(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = volumes(tmp_path / "data")
    monkeypatch.setattr("greenseg.data.cache.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device: no space for the slice cache") as caught:
        prepare(data)
    assert caught.value.filename == str(home)
    assert list(home.glob("*/")) == []


# ── list and clear


def test_list_and_clear(greenseg: Command, home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data")
    folders = [prepare(data).folder, prepare(data, spacing=2.0, labels="1").folder]
    (home / f".{folders[0].name}-abc").mkdir()
    listed = greenseg("data", "cache")
    assert listed.returncode == 0
    assert "2 caches, 154 kB" in listed.stdout
    assert str(data) in "".join(listed.stdout.split()), "it may be wrapped"
    assert "32² × 2 mm" in listed.stdout
    cleared = greenseg("data", "cache", "--clear")
    assert "Freed 15" in cleared.stdout
    assert [path for path in home.iterdir() if path.is_dir()] == []
    assert "0 caches" in greenseg("data", "cache", "--list").stdout


def test_a_cache_that_is_a_file_is_a_mistake(greenseg: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listed = greenseg("data", "cache", GREENSEG_CACHE="file")
    assert (listed.returncode, listed.stdout) == (2, "")
    assert listed.stderr.startswith("error: file: is a file; GREENSEG_CACHE ")
    assert len(listed.stderr.splitlines()) == 1


def test_a_run_keeps_its_slices_while_the_cache_is_cleared(home: Path, tmp_path: Path) -> None:
    slices = prepare(volumes(tmp_path / "data"))
    total = float(slices.images.sum())
    cache.clear()
    assert not slices.folder.exists()
    assert float(slices.images.sum()) == total
    assert len(slices.native) == slices.index["files"]["native.z"]["bytes"], "its end needs them"


# ── slices without brain


def test_slices_without_brain_are_left_out_of_training_only(home: Path, tmp_path: Path) -> None:
    data = volumes(tmp_path / "data", 10)
    slices = prepare(data)
    subjects = {split: len(slices.subjects(split)) for split in ("train", "validation")}
    for share in (0.0, 0.25, 0.5, 1.0):
        training = SliceDataset(slices, "train", share, seed=3)
        assert len(training) == subjects["train"] * 5 - round(share * subjects["train"] * 2)
        empty = sum(not training[[i]]["mask"].any() for i in range(len(training)))
        assert empty == subjects["train"] * 2 - round(share * subjects["train"] * 2)
    assert len(SliceDataset(slices, "validation")) == subjects["validation"] * 5

    def kept(seed: int) -> list[float]:
        training = SliceDataset(slices, "train", 0.5, seed)
        return [float(training[[i]]["image"].sum()) for i in range(len(training))]

    assert kept(3) == kept(3)
    assert kept(3) != kept(4)


def test_memory_is_that_of_the_page_cache(home: Path, tmp_path: Path) -> None:
    """Slices are mapped, not read: anonymous memory does not grow with them."""
    slices = prepare(volumes(tmp_path / "data", 8), image_size=512, spacing=0.25)
    assert slices.bytes > 50e6
    status = Path("/proc/self/status")

    def anonymous() -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("RssAnon")))

    before = anonymous()
    assert slices.images.sum() > 0
    assert anonymous() - before < 10_000, "kB"
