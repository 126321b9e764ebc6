"""`python -m greenseg.measurement RUN SECONDS ACCELERATOR` is the program of one measurement.

A separate process contains the failure of an engine, and has nothing in memory but this one network. Its events are
`step` and `problem` with a `text`, and its exit code is one of `ExitCode`. Zeus' helper processes import this module,
too, so it must not import everything that a measurement needs.
"""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

from greenseg.machine.signals import end_with_parent
from greenseg.training.events import PARENT, emit


def _main(directory: Path, seconds: float, accelerator: str) -> int:
    from greenseg.errors import ExitCode, UserError
    from greenseg.measurement.alone import Occupied
    from greenseg.measurement.measure import measure
    from greenseg.runs.directory import RunDirectory

    try:
        measure(RunDirectory(directory), seconds, accelerator, lambda text: emit({"event": "step", "text": text}))
    except Occupied as error:
        emit({"event": "problem", "text": str(error)})
        return ExitCode.INCOMPLETE
    except UserError as error:
        for problem in error.problems:
            emit({"event": "problem", "text": problem})
        return ExitCode.USAGE
    except Exception as error:
        traceback.print_exc()
        emit({"event": "problem", "text": f"{type(error).__name__}: {error}"})
        return ExitCode.FAILED
    return ExitCode.OK


if __name__ == "__main__":
    if PARENT in os.environ:
        end_with_parent(int(os.environ.pop(PARENT)))
    code = _main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    for helper in multiprocessing.active_children():  # Zeus reads RAPL in processes that would stay forever
        helper.kill()
    os._exit(code)  # all is written, and tearing down torch would only take time
