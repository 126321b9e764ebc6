"""What greenseg prints, to whatever reads it: a pipe that closes, a full disk, a terminal that is not UTF-8."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table

from greenseg.cli.view import print_uncut, say, warn
from tests.conftest import Command
from tests.runs import record, write

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two repeats, in a folder whose name is markup to rich."""
    for seed, dice in ((0, 0.81), (1, 0.83)):
        write(tmp_path / "exp[v2][bold]", record({"seed": seed, "data": "données"}, dice=dice))
    return tmp_path / "exp[v2][bold]"


def ended(
    folder: Path, *arguments: str, prepare: Callable[[], None] = lambda: None, **variables: str
) -> tuple[int, str]:
    """Exit code and stderr of the command with its stdout prepared in the child."""
    result = subprocess.run(
        [sys.executable, "-m", "greenseg", *arguments],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
        encoding="utf-8",
        timeout=600,
    )
    return result.returncode, result.stderr


def to_nobody() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def to_a_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.parametrize(
    ("prepare", "code", "said"),
    [
        (to_nobody, 0, ""),
        (lambda: os.close(1), 0, ""),
        (lambda: os.closerange(0, 2), 0, ""),
        (lambda: os.closerange(0, 3), 0, ""),
        (to_a_full_disk, 1, "error: standard output: No space left on device; part of the output is lost\n"),
    ],
    ids=["reader gone", "stdout closed", "stdin and stdout closed", "all closed", "disk full"],
)
def test_what_nobody_reads_is_no_error_and_what_is_lost_is_one(
    prepare: Callable[[], None], code: int, said: str, tmp_path: Path
) -> None:
    assert ended(tmp_path, "train", "--help", prepare=prepare) == (code, said)


def test_a_report_to_nobody_is_none_the_less_written(runs: Path, tmp_path: Path) -> None:
    assert ended(tmp_path, "report", runs.name, "--emissions", "e.csv", prepare=lambda: os.close(1))[0] == 0
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 3
    assert ended(tmp_path, "report", runs.name, "--format", "json", prepare=to_nobody) == (0, "")


def test_a_mistake_keeps_its_exit_code_where_nobody_reads_it(tmp_path: Path) -> None:
    assert ended(tmp_path, "report", "nowhere", prepare=lambda: os.closerange(0, 3))[0] == 2


def test_a_terminal_that_is_not_utf_8_shows_what_comes_near(greenseg: Command, runs: Path) -> None:
    plain = greenseg("report", runs)
    assert "● on the front" in plain.stdout
    assert "0.8200 ±0.1271" in plain.stdout
    shown = greenseg("report", runs, PYTHONIOENCODING="ascii", **ASCII)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()
    assert "* on the front" in shown.stdout
    assert "0.8200 +-0.1271" in shown.stdout


def test_squares_and_powers_stay_what_they_are(greenseg: Command, phantom: Path) -> None:
    shown = greenseg("data", "check", phantom, PYTHONIOENCODING="ascii")
    assert "128^2" in shown.stdout
    assert "128²" in greenseg("data", "check", phantom).stdout


@pytest.mark.parametrize("kind", ["csv", "html"])
def test_data_are_utf_8_whatever_the_terminal(greenseg: Command, runs: Path, kind: str, tmp_path: Path) -> None:
    shown = greenseg("report", runs, "--format", kind, **ASCII)
    written = greenseg("report", runs, "--format", kind, "--output", "report.txt", **ASCII)
    assert (shown.returncode, written.returncode) == (0, 0), shown.stderr + written.stderr
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == shown.stdout
    assert "données" in shown.stdout


def test_names_of_files_are_utf_8_whatever_the_locale(greenseg: Command, phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "donn[v2]ées")
    for path in [*(tmp_path / "donn[v2]ées").rglob("*_case*")]:
        path.rename(path.with_name(path.name.replace("case", "[red]câs")))
    for variables in (ASCII, {"PYTHONUTF8": "1"}):
        checked = greenseg("data", "check", "donn[v2]ées", **variables, PYTHONIOENCODING="utf-8")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "DWI_[red]câs0000" in checked.stdout


@pytest.mark.parametrize("columns", ["0", "8", "²", "99999999999"])
def test_no_width_cuts_a_figure(greenseg: Command, runs: Path, phantom: Path, columns: str) -> None:
    report = greenseg("report", runs, COLUMNS=columns)
    assert (report.returncode, report.stderr) == (0, "")
    assert "0.8200 ±0.1271" in report.stdout


def test_a_table_is_whole_on_a_narrow_terminal(greenseg: Command, phantom: Path) -> None:
    checked = greenseg("data", "check", phantom, COLUMNS="8")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "DWI_case0000" in checked.stdout
    assert "…" not in checked.stdout


def test_a_path_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["exp[v2]", "a[/]b", "[red]x[/red]", ":smile:", "\\[bold]", "[link=x]"]
    for text in texts:
        say(text)
        warn(text)
    table = Table("[red]heading", title="[b]")
    for text in texts:
        table.add_row(text)
    print_uncut(table)
    said = capsys.readouterr()
    assert said.out.splitlines()[: len(texts)] == said.err.splitlines() == texts
    assert all(said.out.count(text) == 2 for text in texts)
    assert "[red]heading" in said.out
