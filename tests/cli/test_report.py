"""`greenseg report`, as a user runs it, on runs written by hand."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import Command
from tests.runs import energy, epoch, record, write, write_record


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two precisions × two seeds, and one out of memory."""
    folder = tmp_path / "runs" / "sweep"
    for precision, dice, joules in (("32-true", 0.85, 2000), ("bf16-mixed", 0.845, 1200)):
        for seed in (0, 1):
            written = record(
                {"precision": precision, "seed": seed},
                dice=dice + seed / 1000,
                total=energy(60, gpu_nvml=joules + seed),
            )
            write(folder, written, [epoch(0), epoch(1)])
    write(folder, record({"batch_size": 512}, "failed", error="OutOfMemoryError", kind="out_of_gpu_memory"))
    return folder


def test_the_report_of_a_sweep(greenseg: Command, runs: Path) -> None:
    result = greenseg("report")
    assert (result.returncode, result.stderr) == (0, "")
    for text in (
        "Dice against energy: 3 configurations, 5 runs",
        "0.8505 ±0.00",
        "out of GPU memory",
        "Cheapest within 1 % of it: batch_size=8 bf16-mixed",
        "Effect of each setting, all else equal",
    ):
        assert text in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    narrow = greenseg("report", COLUMNS="80").stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert "nvml" in narrow
    assert "No space for" in narrow


def test_machines_are_apart_unless_asked_and_compare_by_ratios(greenseg: Command, runs: Path) -> None:
    other = {"cpu": "another CPU", "host": "there"}
    for precision, joules in (("32-true", 6000), ("bf16-mixed", 3000)):
        total = energy(60, gpu_nvml=joules)
        write(runs / "other", record({"precision": precision, "seed": 7}, dice=0.84, total=total, hardware=other))
    apart = greenseg("report", "--relative-to", "precision=32-true", "--format", "csv").stdout
    found = {(row["precision"], row["hardware"]): row["relative"] for row in csv.DictReader(io.StringIO(apart))}
    assert float(found["bf16-mixed", "another CPU"]) == pytest.approx(0.5)
    assert float(found["bf16-mixed", "some CPU"]) == pytest.approx(0.6, abs=0.01)
    mixed = greenseg("report", "--allow-mixed-hardware", "--format", "csv").stdout
    assert "hardware" not in mixed.splitlines()[0].split(",")
    assert "relative" not in mixed.splitlines()[0].split(",")


def test_what_is_no_terminal_is_never_too_narrow(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    piped = warm.run(
        [sys.executable, "-m", "greenseg", "report"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    greenseg("report", "--output", "table.txt", COLUMNS="50")
    for text in (piped.stdout, (tmp_path / "table.txt").read_text()):
        assert "No space for" not in text
        assert all(
            heading in text.splitlines()[2] for heading in ("J/epoch", "chance", "seconds", "M params", "source")
        )


def test_data_on_stdout_is_nothing_but_data(greenseg: Command, runs: Path) -> None:
    table = greenseg("report", "--format", "csv", "--where", "status=finished", "--sort", "total")
    assert [row["precision"] for row in csv.DictReader(io.StringIO(table.stdout))] == ["bf16-mixed", "32-true"]
    data = json.loads(greenseg("report", "runs", "--format", "json", "--top", "1").stdout)
    assert [found["settings"]["precision"] for found in data["configurations"]] == ["32-true"]
    assert greenseg("report", "--format", "markdown").stdout.startswith("**Dice against energy")
    assert "\\begin{tabular}" in greenseg("report", "--format", "latex", "--columns", "precision,dice").stdout


def test_files_have_the_format_of_their_suffix(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    starts = {"r.txt": "Dice", "r.md": "**", "r.csv": "data,", "r.json": "{", "r.tex": "%", "r.html": "<!doctype html>"}
    for name, start in starts.items():
        result = greenseg("report", "--output", name)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", f"Wrote {name}\n")
        assert (tmp_path / name).read_text().startswith(start)
    assert greenseg("report", "--format", "csv", "--output", "figures.dat").returncode == 0
    assert (tmp_path / "figures.dat").read_text() == (tmp_path / "r.csv").read_text()
    assert not list(tmp_path.glob(".*tmp"))


def test_pictures(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")
    result = greenseg("report", "--plot", "front.svg", "--curves", "curves.png")
    assert result.returncode == 0
    assert "Dice against energy" in result.stdout
    assert (tmp_path / "front.svg").read_text().startswith("<?xml")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_without_matplotlib_name_the_extra(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'matplotlib' else find(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = greenseg("report", "--plot", "front.png", PYTHONPATH=path)
    assert result.returncode == 2
    assert "pip install 'greenseg[plots]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--format cvs", ["no 'cvs' (did you mean 'csv'?)"]),
        ("--output report.docx", ["report.docx: its suffix has no format", ".html"]),
        ("--output front.png", ["--plot draws the front"]),
        ("--plot front.jpg", ["front.jpg: a picture is one of .png, .svg, .pdf"]),
        ("--output nodir/x.html", ["--output nodir/x.html: no such folder"]),
        ("--plot nodir/x.png --curves x.jpg", ["--plot nodir/x.png: no such folder", "x.jpg: a picture is one of"]),
        (
            "--emissions nodir/x.csv --output runs/sweep --format csv",
            ["nodir/x.csv: no such folder", "this is a folder"],
        ),
        ("--plot x.png --curves x.png", ["--plot, --curves: use a different file for each"]),
        ("--format json --output x.csv", ["--format json --output x.csv: the suffix belongs to another format"]),
        ("--format html --output x.png", ["the suffix belongs to another format"]),
        ("--watch", ["--watch shows the table on a terminal"]),
        ("--watch --format csv", ["--watch shows the table on a terminal"]),
        ("--quality dise", ["no 'dise' (did you mean 'dice'?)"]),
        ("--energy cpu", ["no run has it; available: total, own, gpu, per-epoch"]),
        ("--where precison=1 --and sec", ["(did you mean 'precision'?)", "--and: no 'sec'"]),
        ("--sort dise", ["--sort: no 'dise' (did you mean 'dice'?)"]),
        ("--columns dice,precison", ["--columns: no 'precison'"]),
        ("--top 0", ["--top"]),
        ("nowhere nor-there", ["nowhere: no such folder", "nor-there: no such folder"]),
    ],
)
def test_mistakes(arguments: str, expected: list[str], greenseg: Command, runs: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = greenseg("report", *arguments.split())
    assert result.returncode == 2
    assert result.stdout == ""
    assert all(text in result.stderr for text in expected), result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_record_is_left_out_and_the_exit_code_says_so(greenseg: Command, runs: Path) -> None:
    file = sorted(runs.glob("*/run.json"))[0]
    file.write_text(file.read_text()[:300])
    for arguments in ([], ["--format", "json"]):
        result = greenseg("report", *arguments)
        assert result.returncode == 1
        assert f"left out: {Path('runs') / file.relative_to(runs.parent)}" in result.stderr
        assert "32-true" in result.stdout


def test_nothing_has_begun(greenseg: Command, tmp_path: Path) -> None:
    run = write(tmp_path / "runs", record())
    (run.path / "run.json").unlink()
    result = greenseg("report")
    assert (result.returncode, result.stdout) == (0, "No run has begun yet.\n")
    result = greenseg("report", "--format", "csv")
    assert (result.returncode, result.stdout) == (0, "")
    assert "No run has begun yet." in result.stderr


def read_until(terminal: int, text: str, seconds: float = 300) -> str:
    """What the terminal shows until a text appears in it."""
    shown, deadline = "", time.monotonic() + seconds
    while text not in re.sub(r"\x1b\[[0-9;?]*\w", "", shown):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


def drain(terminal: int) -> None:
    """Read what the terminal shows until nobody writes to it any more: a full one would keep its writer waiting."""
    with contextlib.suppress(OSError):  # EIO, on Linux
        while os.read(terminal, 65536):
            pass


def test_watch_follows_a_running_sweep(runs: Path, tmp_path: Path) -> None:
    running = write(runs, record({"precision": "16-mixed"}, "running"), [epoch(0)])
    shutil.copytree(next(run.parent for run in runs.glob("*/run.json") if run.parent != running.path), runs / "copy")
    leader, follower = pty.openpty()
    with running.claim():
        process = warm.Popen(
            [sys.executable, "-m", "greenseg", "report", "runs", "--watch"],
            cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env=os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"},
        )  # fmt: skip
        os.close(follower)
        try:
            assert "1 failed, 4 finished, 1 running" in read_until(leader, "copies of others")
            write_record(running, record({"precision": "16-mixed"}, dice=0.99, total=energy(60, gpu_nvml=10)))
            shown = read_until(leader, "0.9900")
            assert "1 failed, 5 finished" in shown
        finally:
            process.send_signal(signal.SIGINT)
            drain(leader)
            code = process.wait(timeout=30)
            os.close(leader)
    assert code == 0


def test_classes_on_request(greenseg: Command, runs: Path) -> None:
    refused = greenseg("report", "--classes")
    assert refused.returncode == 2
    assert "no run has several classes" in refused.stderr
    for seed, csf in enumerate((0.7, 0.9)):
        written = record({"model": "enet", "seed": seed})
        written["metrics"]["classes"] = {"csf": {"dice": csf}, "brain": {"dice": 0.8}}
        write(runs, written)
    shown = greenseg("report", "--classes", "--quality", "dice:csf")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "csf Dice against energy" in shown.stdout
    assert "Dice of each class" in shown.stdout
    assert "3 configurations without csf Dice" not in shown.stdout, "one of them has not finished"
    assert "2 configurations without csf Dice in every repeat: not ranked." in shown.stdout
    assert "| csf Dice | brain Dice |" in greenseg("report", "--classes", "--format", "markdown").stdout


def test_further_seeds_are_a_sweep_file(greenseg: Command, runs: Path, tmp_path: Path) -> None:
    result = greenseg("report", "--suggest-seeds")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("# ")
    written = greenseg("report", "--suggest-seeds", "--output", "more.yaml")
    assert (written.returncode, written.stderr.strip()) == (0, "Wrote more.yaml")
    assert (tmp_path / "more.yaml").read_text() == result.stdout
    refused = greenseg("report", "--suggest-seeds", "--format", "csv")
    assert refused.returncode == 2
    assert "--suggest-seeds prints a sweep file" in refused.stderr
