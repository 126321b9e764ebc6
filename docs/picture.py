"""Draws docs/table.svg, the README's picture: the Pareto table of the runs in a folder, as `greenseg report` prints it.

make demo && .venv/bin/python docs/picture.py runs/demo
"""

import sys
from pathlib import Path

from rich.console import Console

from greenseg.report.results import by_configuration, read_runs
from greenseg.report.table import pareto_table
from greenseg.run_directory import find_runs

runs, _ = read_runs(find_runs([Path(sys.argv[1])]))
console = Console(record=True, width=100, force_terminal=True, color_system="truecolor")
console.print(pareto_table(by_configuration(runs)))
console.save_svg(str(Path(__file__).with_name("table.svg")), title="greenseg report runs/")
