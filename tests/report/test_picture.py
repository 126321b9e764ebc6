"""Pictures: what is in them, that labels cover nothing, that they are files of their kind."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")

from matplotlib.figure import Figure
from matplotlib.text import Annotation

from greenseg.report.comparison import Comparison
from greenseg.report.picture import PICTURES, draw_curves, draw_front, text_box
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.report.select import Query
from greenseg.runs.directory import find_runs
from tests.report.comparisons import compared
from tests.report.test_comparison import grid, one
from tests.runs import Json, energy, epoch, record, write


def crowded(number: int) -> list[Json]:
    """A front of so many points, close to each other, with long names, three repeats each."""
    return [
        one(
            0.80 + 0.0005 * i + 0.004 * seed,
            1000 * 1.02**i,
            model="tu-mobilenetv3_small_050-deeplabv3plus" if i % 2 else "resnet18-unet",
            batch_size=8 + i,
            seed=seed,
        )
        for i in range(number)
        for seed in (0, 1, 2)
    ]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
@pytest.mark.parametrize("what", PICTURES)
def test_pictures_are_files_of_their_kind_and_the_same_each_time(what: str, kind: str) -> None:
    content = PICTURES[what](compared(*grid()), kind)
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert content == PICTURES[what](compared(*grid()), kind)


def labels(figure: Figure) -> list[Annotation]:
    return [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]


@pytest.mark.parametrize("number", [2, 4, 6, 7, 25])
def test_labels_do_not_collide(number: int) -> None:
    comparison = compared(*crowded(number))
    figure = draw_front(comparison)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = labels(figure)
    boxes = [text_box(label, renderer) for label in found]
    assert len(found) >= (number if number <= 6 else 0.8 * number)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for box in boxes:
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y1)
    points = [figure.axes[0].transData.transform(label.xy) for label in found]
    assert not any(box.contains(*point) for box in boxes for point in points)
    front = [line for line in figure.axes[0].get_lines() if line.get_linestyle() in ("-", "--")]
    paths = [line.get_transform().transform_path(line.get_path()) for line in front]
    assert len(paths) == 1
    assert not any(path.intersects_bbox(box, filled=False) for path in paths for box in boxes)


def long_names(number: int) -> list[Json]:
    """A front of so many points with names of more than a line."""
    return [
        one(
            0.5 + 0.01 * i, 1000 * 1.2**i, model="tu-mobilenetv3_small_050-deeplabv3plus" if i % 2 else "resnet18-unet",
            batch_size=8 + i, epochs=10 + i, lr=0.0123 + i / 100, weight_decay=0.0123 + i / 100, spacing=1.5 + i,
            workers=i, data=f"/a/long/path/to/images/of/release/{i}", schedule="plateau" if i % 3 else "onecycle",
        )
        for i in range(number)
    ]  # fmt: skip


@pytest.mark.parametrize("number", [2, 6, 12])
@pytest.mark.parametrize("draw", [draw_front, draw_curves])
def test_all_that_is_written_is_inside_the_picture(draw: Callable[[Comparison], Figure], number: int) -> None:
    figure = draw(compared(*long_names(number)))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes = figure.axes[0]
    legends = [*figure.legends, *filter(None, [axes.get_legend()])]
    written = [*figure.texts, *(text for legend in legends for text in legend.get_texts())]
    written += [axes.xaxis.label, axes.yaxis.label]
    boxes = [
        *(text.get_window_extent(renderer) for text in written),
        *(text_box(text, renderer) for text in labels(figure)),
    ]
    for box in [*boxes, *(legend.get_window_extent(renderer) for legend in legends)]:
        assert figure.bbox.padded(1).contains(*box.min)
        assert figure.bbox.padded(1).contains(*box.max)
    for legend in figure.legends:
        assert legend.get_window_extent(renderer).y1 < axes.xaxis.label.get_window_extent(renderer).y0
    assert axes.get_window_extent().width > 0.7 * figure.bbox.width
    assert axes.get_window_extent().height > 3 * figure.dpi


def test_names_without_room_become_numbers_that_a_key_explains() -> None:
    figure = draw_front(compared(*long_names(6)))
    assert sorted(label.get_text() for label in labels(figure)) == [str(n) for n in range(1, 7)]
    assert sum(text.get_text().count("batch_size=") for text in figure.texts) == 6


def test_curves_are_of_the_baseline_and_the_cheapest_of_the_front() -> None:
    (legend,) = draw_curves(compared(*long_names(12))).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert [name.split("batch_size=")[1].split()[0] for name in names] == ["8", "9", "10", "11", "12", "13", "19"]
    assert legend.get_title().get_text() == "5 configurations of the front with more energy not drawn"


def test_many_points_are_numbered_and_explained() -> None:
    figure = draw_front(compared(*crowded(9)))
    assert {label.get_text() for label in labels(figure)} <= {str(n) for n in range(1, 10)}
    assert any("batch_size=16" in text.get_text() for text in figure.texts)
    assert figure.get_size_inches()[1] > 5


def test_the_front_says_what_is_estimated() -> None:
    comparison = compared(one(0.8, 100, epochs=1), one(0.7, 10, "cpu_estimate", epochs=2), one(0.6, 300, epochs=3))
    legend = draw_front(comparison).axes[0].get_legend()
    assert legend is not None
    names = {text.get_text() for text in legend.get_texts()}
    assert names == {"front", "front (estimate)", "others", "baseline"}


def test_energies_of_several_decades_are_shown_by_decades() -> None:
    near, far = (compared(one(0.8, 100, epochs=1), one(0.9, top, epochs=2)) for top in (900, 9000))
    assert [draw_front(comparison).axes[0].get_xscale() for comparison in (near, far)] == ["linear", "log"]


def test_axes_go_no_further_than_what_can_be() -> None:
    dice = [(0.99, 0), (0.6, 1), (0.98, 2)]  # their interval reaches beyond 1
    comparison = compared(*(one(value, 100, seed=seed) for value, seed in dice))
    low, high = draw_front(comparison).axes[0].get_ylim()
    assert 0 <= low < high
    assert 1 < high < 1.2, "room for a name above the points"


def test_without_any_figure_there_is_still_a_picture() -> None:
    comparison = compared(record({}, "failed"))
    for draw in PICTURES.values():
        assert draw(comparison, "png")


def from_disk(folder: Path) -> Comparison:
    return Query().compare(by_configuration(read_runs(find_runs([folder]))[0]))


def test_curves_are_dice_against_joules_spent(tmp_path: Path) -> None:
    written = record({}, dice=0.9)
    before = {"startup": energy(1, cpu_rapl=5), "preparation": energy(1, cpu_rapl=2)}
    epochs = {"train": energy(6, cpu_rapl=60), "validation": energy(2, cpu_rapl=20), "other": energy(1, cpu_rapl=1)}
    written["attempts"] = [{"status": "killed", "energy": before | epochs}, {"energy": before | epochs}]
    lines = [epoch(0, dice=0.1), epoch(1, dice=None), epoch(1, 1, dice=0.5), epoch(2, 1, dice=0.9)]
    write(tmp_path, written, lines)
    (line,) = draw_curves(from_disk(tmp_path)).axes[0].get_lines()
    first = 5 + 2 + 60 + 20 + 1
    assert np.asarray(line.get_xdata()).tolist() == [47, first + 47, first + 87]
    assert np.asarray(line.get_ydata()).tolist() == [0.1, 0.5, 0.9]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_curve_begins_with_all_that_was_spent_before_its_first_epoch(attempts: int, tmp_path: Path) -> None:
    written = record({}, dice=0.9)
    phases = {"startup": energy(1, cpu_rapl=5), "preparation": energy(1, cpu_rapl=2), "probe": energy(9, cpu_rapl=498)}
    written["energy"]["phases"] = phases
    written["attempts"] = [{"status": "interrupted", "energy": phases}] * attempts
    write(tmp_path, written, [epoch(0, attempts - 1, dice=0.5)])
    (line,) = draw_curves(from_disk(tmp_path)).axes[0].get_lines()
    assert np.asarray(line.get_xdata()).tolist() == [505 * attempts + 40]


def test_a_run_without_readable_epochs_has_no_curve(tmp_path: Path) -> None:
    run = write(tmp_path, record({}), [epoch(0)])
    (run.path / "epochs.jsonl").write_text("[]\n{}\n")
    (line,) = draw_curves(from_disk(tmp_path)).axes[0].get_lines()
    assert np.asarray(line.get_xdata()).tolist() == []
