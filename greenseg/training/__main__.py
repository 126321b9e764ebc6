"""`python -m greenseg.training RUN_DIRECTORY` is the program of one run.

Zeus' helper processes import this module, too, so it must not import everything that a run needs.
"""

import os
import sys
from pathlib import Path

from greenseg.machine.signals import end_with_parent
from greenseg.training.events import PARENT
from greenseg.training.program import run_and_exit

if __name__ == "__main__":
    if PARENT in os.environ:
        end_with_parent(int(os.environ.pop(PARENT)))  # popped, so that child processes do not inherit it
    run_and_exit(Path(sys.argv[1]))
