"""The table of a data set's cases."""

from collections import Counter
from collections.abc import Mapping

from rich.table import Table

from greenseg.data.check import Check
from greenseg.report.units import count

_SPLITS = ("train", "validation", "test")


def case_table(found: Check) -> Table:
    """One row per case. Distinct values within a case are on separate lines; – means unreadable."""
    splits = Counter(dict.fromkeys(_SPLITS, 0))
    splits.update(case.split or "unknown" for case in found.cases)
    slices = sum(case.slices for case in found.cases)
    title = f"{count(len(found.cases), 'case')} ({_each(splits)})"
    of_split = Counter(dict.fromkeys(_SPLITS, 0))
    for case in found.cases:
        of_split[case.split or "unknown"] += case.slices
    per_split = f" ({_each(of_split)})" if splits["test"] else ""
    channels = f", channels {', '.join(found.channels)}" if len(found.channels) > 1 else ""
    table = _table(f"{title}, {count(slices, 'slice')}{per_split}, layout {found.layout}{channels}")
    table.add_column("case", overflow="fold")
    table.add_column("split", no_wrap=True)
    for name in ("slices", "empty", "size", "mm", "axes", "type", "mask", "intensity"):
        table.add_column(name, justify="right", no_wrap=True)
    for case in found.cases:
        table.add_row(
            case.subject,
            case.split or "–",
            str(case.slices) if case.files else "–",
            "–" if case.empty_slices is None else str(case.empty_slices),
            "\n".join(_plane(*size) for size in case.sizes),
            "\n".join(f"{_plane(x, y)}×{z:.3g}" for x, y, z in case.spacings),
            "\n".join(case.orientations),
            "\n".join(case.types),
            "–" if case.foreground is None else f"{case.foreground:.1%}",
            "\n".join("–".join(f"{v:.4g}" for v in c.intensity) for c in case.channels),
        )
    return table


def class_table(found: Check) -> Table:
    """One row per class."""
    table = _table(f"{len(found.classes)} classes")
    table.add_column("class", overflow="fold")
    for name in ("labels", "foreground", "cases"):
        table.add_column(name, justify="right", no_wrap=name != "labels")
    for of_class in found.classes:
        labels = "+".join(map(str, of_class.labels))
        share = "–" if of_class.share is None else f"{of_class.share:.1%}"
        table.add_row(of_class.name, labels, share, str(of_class.subjects))
    return table


def _each(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {split}" for split, number in numbers.items() if number)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _plane(x: float, y: float) -> str:
    return f"{x:.3g}²" if x == y else f"{x:.3g}×{y:.3g}"
