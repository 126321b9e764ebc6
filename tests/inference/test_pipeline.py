"""Subjects, stacks, sizes of batches, flips."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.classes import Classes
from greenseg.data.hounsfield import Window
from greenseg.inference import pipeline
from greenseg.inference.batching import BatchSize, in_batches
from greenseg.inference.flips import Flipped
from greenseg.inference.inputs import find
from greenseg.inference.pipeline import How
from greenseg.inference.recipe import Recipe
from tests.data.datasets import write
from tests.inference.fakes import Intensity

RECIPE = Recipe(24, 2.0)


def read(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_all_images_of_a_subject_decide_its_scale(tmp_path: Path) -> None:
    bright = np.full((1, 24, 24), 400, np.int16)
    write(tmp_path / "in" / "c_slice0.nii.gz", bright)
    write(tmp_path / "in" / "c_slice1.nii.gz", bright // 4)
    write(tmp_path / "in" / "d_slice1.nii.gz", bright // 4)
    subjects = find(tmp_path / "in", RECIPE).by_subject()
    done = list(pipeline.run(Intensity(RECIPE), subjects, How(tmp_path / "out"), BatchSize(8)))
    assert [(one.volumes, one.slices) for one in done] == [(1, [1, 1]), (1, [1])]
    found = {path.name: bool(read(path).any()) for path in (tmp_path / "out").iterdir()}
    assert found == {"c_slice0.nii.gz": True, "c_slice1.nii.gz": False, "d_slice1.nii.gz": True}


def test_the_largest_component_of_a_stack_of_slices_spans_files(tmp_path: Path) -> None:
    for number in range(3):
        plane = np.zeros((1, 24, 24), np.int16)
        plane[:, 2:5, 2:5] = 400  # 27 pixels in three files
        if number == 1:
            plane[:, 12:16, 12:16] = 400  # 16 pixels in one
        write(tmp_path / "in" / f"c_slice{number}.nii.gz", plane)
    subjects = find(tmp_path / "in", RECIPE).by_subject()
    list(pipeline.run(Intensity(RECIPE), subjects, How(tmp_path / "out", largest=True), BatchSize(8)))
    middle = read(tmp_path / "out" / "c_slice1.nii.gz")
    assert middle[0, 3, 3] == 1
    assert not middle[:, 12:16].any()


def test_labels_are_those_of_the_training(tmp_path: Path) -> None:
    recipe = Recipe(24, 2.0, classes=Classes(("a", "b"), ((7, 9), (300,))))
    values = np.zeros((2, 24, 24), np.int16)
    values[:, 4:10], values[:, 12:20] = 200, 400
    write(tmp_path / "in" / "x.nii.gz", values)
    how = How(tmp_path / "out", suffix="_pred", save_probabilities=True)
    list(pipeline.run(Intensity(recipe), find(tmp_path / "in", recipe).by_subject(), how, BatchSize(8)))
    image = sitk.ReadImage(str(tmp_path / "out" / "x_pred.nii.gz"))
    assert image.GetPixelID() == sitk.sitkUInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.array([0, 7, 300])[values // 200])
    for name, value in (("a", 200), ("b", 400)):
        found = read(tmp_path / "out" / "probabilities" / name / "x.nii.gz")
        np.testing.assert_allclose(found, values == value)


def test_channels_in_hounsfield_units_have_the_window_of_the_training(tmp_path: Path) -> None:
    recipe = Recipe(24, 2.0, windows={0: Window(-100, 300)})
    values = np.full((1, 24, 24), 50, np.int16)
    values[:, 8:12], values[:, 12:16], values[:, 16:] = 150, -1000, 2000
    write(tmp_path / "in" / "x.nii.gz", values)
    list(pipeline.run(Intensity(recipe), find(tmp_path / "in", recipe).by_subject(), How(tmp_path), BatchSize(8)))
    np.testing.assert_array_equal(read(tmp_path / "x.nii.gz"), values > 100)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    predictor = Intensity(RECIPE, fits=5)
    images = np.random.default_rng(0).random((30, 1, 24, 24), np.float32)
    for sizes in (BatchSize(16), BatchSize()):
        found = np.concatenate(list(in_batches(predictor, images, sizes)))
        np.testing.assert_array_equal(found, images)
        assert sizes.largest in (4, 5)
        assert len(sizes.notes) in (1, 2)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(in_batches(Intensity(RECIPE, fits=0), images, BatchSize(16)))


def test_the_first_batches_choose_the_size() -> None:
    sizes = BatchSize()
    tried: list[int] = []
    while sizes.chosen != 8 or len(tried) < 12:
        tried.append(sizes.next(1000))
        sizes.took(tried[-1], tried[-1] * {1: 3.0, 2: 2.0, 4: 1.5, 8: 1.0, 16: 1.2, 32: 1.4}[tried[-1]])
    assert tried == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert sizes.next(5) == 5


def test_flips_are_averaged() -> None:
    class Left(Intensity):
        def probabilities(self, images: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"):  # type: ignore[no-untyped-def]
            found = np.zeros_like(images)
            found[..., :12] = images[..., :12]  # sees only the left half
            return found

    image = np.ones((1, 1, 24, 24), np.float32)
    np.testing.assert_allclose(Flipped(Left(RECIPE)).probabilities(image), image / 2)
    np.testing.assert_array_equal(Flipped(Intensity(RECIPE)).probabilities(image), image)
