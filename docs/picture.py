"""Draws the README's pictures: docs/table.svg, the output of `greenseg report` for the runs in a folder, and
docs/front.svg, the front of the runs in another folder, with repeats.

make demo && .venv/bin/python docs/picture.py runs/demo FOLDER
"""

import sys
from pathlib import Path

from rich.console import Console

from greenseg.files import write_atomically
from greenseg.report.comparison import Comparison
from greenseg.report.picture import front_picture
from greenseg.report.reader import read_runs
from greenseg.report.results import by_configuration
from greenseg.report.select import Query
from greenseg.report.view import ReportView
from greenseg.runs.directory import find_runs


def compared(folder: str) -> Comparison:
    """The comparison of all runs in a folder."""
    return Query().compare(by_configuration(read_runs(find_runs([Path(folder)]))[0]))


here = Path(__file__).parent
comparison = compared(sys.argv[1])
console = Console(record=True, width=100, force_terminal=True, color_system="truecolor")
console.print(ReportView(comparison, comparison.rows))
console.save_svg(str(here / "table.svg"), title="greenseg report runs/")
write_atomically(here / "front.svg", front_picture(compared(sys.argv[2]), "svg"))
