"""Which images a folder or a data set has, their subjects, channels and the names of their masks."""

from pathlib import Path

import numpy as np
import pytest

from greenseg.errors import UserError
from greenseg.inference.inputs import Inputs, find
from greenseg.inference.recipe import Recipe
from tests.data.datasets import grey, labelled, write, write_bids, write_csv, write_nnunet

ONE, TWO = Recipe(32, 2.0), Recipe(32, 2.0, channels=2)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(found: Inputs) -> dict[str, list[str]]:
    return {image.name: [path.name for path in image.paths] for image in found.images}


def test_a_folder_has_an_image_per_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nrrd", "notes.txt", ".hidden.nii")
    assert names(find(tmp_path, ONE)) == {"a": ["a.nii.gz"], "b": ["b.nrrd"]}


def test_slices_are_grouped_by_subject(tmp_path: Path) -> None:
    touch(tmp_path, "c7_slice0.nii", "c7_slice1.nii", "c8_slice0.nii")
    assert [len(subject) for subject in find(tmp_path, ONE).by_subject()] == [2, 1]


def test_channels_in_names_as_in_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz")
    assert set(names(find(tmp_path, ONE))) == {"a", "b"}
    assert set(names(find(tmp_path / "a_0000.nii.gz", ONE))) == {"a"}
    touch(tmp_path, "a_0001.nii.gz", "b_0001.nii.gz")
    assert names(find(tmp_path, TWO))["b"] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert names(find(tmp_path / "a_0000.nii.gz", TWO)) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}
    assert names(find(tmp_path, TWO, channels="1,0"))["a"] == ["a_0001.nii.gz", "a_0000.nii.gz"]
    assert names(find(tmp_path, ONE, channels="1"))["a"] == ["a_0001.nii.gz"]
    with pytest.raises(UserError, match=r"2 channels .*trained on 1"):
        find(tmp_path, ONE)
    (tmp_path / "b_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"b_0001\.nii\.gz: missing"):
        find(tmp_path, TWO)


def test_numbers_of_images_are_no_channels(tmp_path: Path) -> None:
    touch(tmp_path, "img_0000.nii.gz", "img_0001.nii.gz", "img_0002.nii.gz")
    assert set(names(find(tmp_path, ONE))) == {"img_0000", "img_0001", "img_0002"}


def test_data_sets_need_no_masks(tmp_path: Path) -> None:
    nnunet = write_nnunet(tmp_path / "n", {"a": labelled(), "b": labelled()}, {"background": 0, "x": 1})
    (nnunet / "labelsTr" / "b.nii.gz").unlink()
    write(nnunet / "imagesTs" / "t_0000.nii.gz", grey(3))
    assert set(names(find(nnunet, ONE))) == {"a", "b", "t"}
    for mask in (nnunet / "labelsTr").iterdir():
        mask.unlink()
    (nnunet / "labelsTr").rmdir()
    assert set(names(find(nnunet, ONE))) == {"a", "b", "t"}

    bids = write_bids(tmp_path / "b", {"01": labelled(), "02": labelled()})
    next(bids.glob("sub-02/anat/*_dseg.nii.gz")).unlink()
    assert [image.subject for image in find(bids, ONE).images] == ["sub-01", "sub-02"]

    e2mip = touch(tmp_path / "e", "training_data/images/img_1.nii", "testing_data/images/img_9.nii")
    assert set(names(find(e2mip, ONE))) == {"img_1", "img_9"}
    only_test = touch(tmp_path / "t", "testing_data/images/img_9.nii")
    assert set(names(find(only_test, ONE))) == {"img_9"}

    touch(tmp_path, "x.nii", "y.nii")
    table = write_csv(tmp_path / "cases.csv", [{"image": "x.nii", "mask": ""}, {"image": "y.nii", "mask": "no.nii"}])
    assert set(names(find(table, ONE))) == {"x", "y"}


def test_equal_names_get_subfolders(tmp_path: Path) -> None:
    root = touch(tmp_path / "e", "training_data/images/a.nii", "testing_data/images/a.nii", "testing_data/images/b.nii")
    assert set(names(find(root, ONE))) == {"training_data/images/a", "testing_data/images/a", "b"}


def test_an_impossible_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"second image with the same name"):
        find(touch(tmp_path / "two", "a.nii", "a.nrrd"), ONE)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        find(Path("/dev/null"), ONE)
    with pytest.raises(UserError, match=r"no images .*below"):
        find(touch(tmp_path / "up", "below/a.nii", "x.txt"), ONE)


def test_the_folder_of_a_series_is_one_image(tmp_path: Path) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ones((1, 8, 8), np.uint16))
    (tmp_path / "scan").mkdir()
    sitk.WriteImage(image[:, :, 0], str(tmp_path / "scan" / "1.dcm"))
    assert names(find(tmp_path / "scan", ONE)) == {"scan": ["scan"]}
    assert names(find(tmp_path, ONE)) == {"scan": ["scan"]}
