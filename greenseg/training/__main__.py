"""`python -m greenseg.training RUN_DIRECTORY` is the program of one run.

Zeus' helper processes import this module, too, and must not pay for what a run needs.
"""

import sys
from pathlib import Path

from greenseg.training.program import run_and_exit

if __name__ == "__main__":
    run_and_exit(Path(sys.argv[1]))
