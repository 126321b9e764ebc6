"""The script of a worker: it starts the worker's command, watches it, and leaves its exit code behind."""

import shlex
from collections.abc import Sequence

from greenseg.batch_job import WORKER
from greenseg.errors import ExitCode
from greenseg.launchers.launcher import Submission

_SCRIPT = """\
#!/bin/bash
{header}# A worker of the sweep {sweep}. Its number is {number}.
files={files}_{number}
rm -f "$files.end" "$files.left" "$files.code"
export {variable}={name}_{number}
cd {directory} || exit

{setup}stopped='' warned=''
# A warning in time: the worker stops its runs, and tells with its exit code whether a further start goes on with them.
trap 'warned=1; kill -TERM "$(cat "$files.pid")"' USR1
# A request to end goes to every process of the job, so it is not passed on.
trap 'stopped=1' TERM
(
    trap : TERM   # not ignored: the worker starts with the default
    bash -c 'echo $$ > "$0.pid"; exec "$@"' "$files" {command}
    echo $? > "$files.code"
) &
# A signal ends the wait, too, and bash 5.2 loses the exit code of a process that ends at the same time.
while kill -0 $! 2> /dev/null; do wait $!; done
code=$(cat "$files.code" || echo 137)
rm -f "$files.pid" "$files.code"
{end}echo "$code" > "$files.new" && mv "$files.new" "$files.end"
# A worker that leaves runs to others has done its work.
[ "$code" != {incomplete} ] || code=0
exit "$code"
"""


def write(
    submission: Submission, number: str, header: Sequence[str] = (), setup: Sequence[str] = (), end: str = ""
) -> str:
    """The script of the workers of a submission.

    Args:
        submission: the submission.
        number: expression of the shell for the number of the worker.
        header: lines at its top.
        setup: commands before the worker.
        end: commands after it; its exit code is in `code`. `warned` is set if it was asked to stop in time, and
            `stopped` if it was asked to end for good.
    """
    return _SCRIPT.format(
        header="".join(f"{line}\n" for line in header),
        sweep=submission.sweep,
        number=number,
        files=shlex.quote(str(submission.folder / submission.name)),
        variable=WORKER,
        name=submission.name,
        directory=shlex.quote(submission.directory),
        setup="".join(f"{line}\n" for line in (*setup, *[""] * bool(setup))),
        command=shlex.join(submission.command),
        end=end.format(requeue=int(ExitCode.REQUEUE)),
        incomplete=int(ExitCode.INCOMPLETE),
    )
