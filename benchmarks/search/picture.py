"""The picture of searches on recorded grids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_FILE = Path(__file__).parents[2] / "docs" / "search.svg"
_FIRST = "greenseg"


def draw(found: Mapping[str, Sequence[Mapping[str, Any]]], shares: Sequence[float]) -> None:
    """Mean hypervolume against joules of all methods, one panel per grid; writes docs/search.svg.

    Args:
        found: grid → for each shuffle, the scores of all methods.
        shares: the budgets.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "search", "font.size": 9}):
        figure, axes = pyplot.subplots(2, len(found), figsize=(9, 6.5), sharex=True, squeeze=False)
        for column, (name, shuffles) in enumerate(found.items()):
            for row, (score, label) in enumerate((("unseen", "on the unseen seed"), ("means", "of the means"))):
                panel = axes[row][column]
                for method in shuffles[0]:
                    values = np.array([getattr(each[method], score) for each in shuffles]).mean(0)
                    if len(values) == len(shares):
                        first = method == _FIRST
                        panel.plot(np.array(shares) * 100, values, marker="o", markersize=3, label=method,
                                   linewidth=2.5 if first else 1.0, zorder=3 if first else 2,
                                   color="#0b6e4f" if first else None)  # fmt: skip
                whole = np.mean([getattr(each["grid"], score)[0] for each in shuffles])
                panel.axhline(whole, color="#888888", linestyle="--", linewidth=1, label="whole grid")
                panel.set_title(f"{name}, {label}")
                panel.set_ylim(0, 1)
                panel.grid(alpha=0.25)
                if column == 0:
                    panel.set_ylabel("hypervolume, mean of shuffles")
                if row == 1:
                    panel.set_xlabel("joules, % of the grid with equal seeds")
        axes[0][0].legend(fontsize=7, loc="lower right")
        figure.tight_layout()
        figure.savefig(_FILE, metadata={"Date": None})
        pyplot.close(figure)
