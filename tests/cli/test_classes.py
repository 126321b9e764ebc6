"""Several classes in several channels, as a user trains and compares them."""

import csv
import io
from pathlib import Path

from tests.cli.test_train import epochs, only_run, record
from tests.conftest import SMALL, Command

TISSUES = ["csf", "brain", "ventricles", "cerebellum"]


def test_from_a_data_set_with_tissues_to_a_report_on_one(greenseg: Command, tmp_path: Path) -> None:
    made = greenseg("data", "phantom", "tissues", "--volumes", "4", "--tissues", "--channels", "T2W,DWI")
    assert made.returncode == 0, made.stderr
    trained = greenseg("train", "--data", "tissues", *SMALL)
    assert trained.returncode == 0, trained.stderr
    for name in TISSUES:
        assert f"│ {name} " in trained.stdout
    run = only_run(tmp_path / "runs")
    written = record(run)
    assert list(written["metrics"]["classes"]) == list(written["data"]["classes"]) == TISSUES
    assert written["data"]["channels"] == 2
    assert all(list(line["classes"]) == TISSUES for line in epochs(run))

    # The same labels in one class: another run, which has no csf.
    labels = "+".join(str(number) for text in written["data"]["classes"].values() for number in text.split("+"))
    one = greenseg("train", "--data", "tissues", *SMALL, "--labels", labels.replace("+", ","), "--out", "runs/one")
    assert one.returncode == 0, one.stderr
    assert "│ csf " not in one.stdout

    report = greenseg("report", "--classes", "--quality", "dice:csf")
    assert (report.returncode, report.stderr) == (0, "")
    assert "Dice of each class" in report.stdout
    assert "1 configuration without csf Dice in every repeat: not ranked." in report.stdout
    exported = list(csv.DictReader(io.StringIO(greenseg("report", "--format", "csv").stdout)))
    dice = sorted(line["dice:brain"] for line in exported)
    assert dice[0] == ""
    assert float(dice[1]) == written["metrics"]["classes"]["brain"]["dice"]

    alone = greenseg("report", run)
    assert "Quality of each class" in alone.stdout
    wrong = greenseg("report", "--quality", "hd95:cerebelum")
    assert wrong.returncode == 2
    assert "cerebellum" in wrong.stderr
