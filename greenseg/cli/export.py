"""`greenseg export`: a trained network as a file that needs no greenseg."""

from pathlib import Path
from typing import Annotated

import typer

from greenseg.cli.network import find_network
from greenseg.export.formats import FORMATS, Request, format_for
from greenseg.export.publish import check_out, published


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or a folder of runs with --pick.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write, or a folder for formats that are folders.")
    ],
    format: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"One of: {', '.join(FORMATS)}. Default: by the suffix of OUT."),
    ] = "",
    pick: Annotated[
        str, typer.Option(metavar="best|knee|cheapest", help="Choose a run of a sweep, as greenseg report does.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Replace an earlier export.")] = False,
) -> None:
    """Export a trained network as a file that runs without greenseg.

    Beside the file, a description in JSON and Markdown has the preprocessing and an example in Python. An export is
    published only if its probabilities equal the network's own.

    --format e2mip writes a submission to the E2MIP challenge instead: a folder that retrains the run's configuration.
    """
    kind = format_for(format, out)
    check_out(kind, out, again)

    found = find_network(run, pick)

    from greenseg.cli.view import console, say  # late: a wrong RUN is reported without it

    with published(out) as made:
        if console.is_terminal:
            with console.status("exporting and comparing with the original"):
                sentences = kind.write(Request(found, run, pick, out), made)
        else:
            sentences = kind.write(Request(found, run, pick, out), made)
    say(f"Wrote {', '.join(str(path) for path in reversed(kind.paths(out)))}")
    for sentence in sentences:
        say(sentence)
