"""The table of a data set's cases."""

from collections import Counter

from rich.table import Table

from greenseg.data.check import Check
from greenseg.report.units import count


def case_table(found: Check) -> Table:
    """One row per case. Distinct values within a case are on separate lines; – means unreadable."""
    splits = Counter(case.split or "unknown" for case in found.cases)
    slices = sum(case.slices for case in found.cases)
    title = f"{count(len(found.cases), 'case')} ({', '.join(f'{n} {split}' for split, n in splits.items())})"
    table = Table(
        title=f"{title}, {count(slices, 'slice')}, layout {found.layout}",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
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
            "–".join(f"{value:.4g}" for value in case.intensity),
        )
    return table


def _plane(x: float, y: float) -> str:
    return f"{x:.3g}²" if x == y else f"{x:.3g}×{y:.3g}"
