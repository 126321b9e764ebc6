"""The panel that a single run ends with."""

from rich.panel import Panel
from rich.table import Table

from greenseg.report.results import Run
from greenseg.report.units import duration, joules


def run_panel(run: Run) -> Panel:
    """What a finished run achieved, what it cost and where it is."""
    metrics, energy, settings = run.metrics, run.energy, run.settings
    precision, ran = settings["precision"], run.ran.get("precision")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    dice, iou = metrics.get("dice"), metrics.get("iou")
    best = f"at epoch {metrics.get('best_epoch', 0) + 1} of {metrics['epochs']}, the best"
    grid.add_row(
        "Dice",
        "–" if dice is None else f"{dice:.4f}  mean over {len(metrics['volume_dice'])} volumes, {best}",
    )
    grid.add_row("IoU", "–" if iou is None else f"{iou:.4f}")
    phases = run.record["energy"]["phases"]
    for reading in energy.readings:
        grid.add_row(f"{reading.component} energy", f"{joules(reading.joules)}  source: {reading.source}")
    for component in run.unmeasured:
        grid.add_row(f"{component} energy", "unknown: no sensor (see sensors_missing in run.json)")
    shares = ", ".join(
        f"{name} {joules(sum(sum(c.values()) for c in e['joules'].values()))}" for name, e in phases.items()
    )
    grid.add_row("total energy", f"{joules(energy.joules)}  ({shares})")
    grid.add_row("per epoch", joules(metrics.get("joules_per_epoch")))
    grid.add_row("time", duration(energy.seconds))
    grid.add_row("parameters", f"{run.record['network']['parameters']:,}")
    grid.add_row("precision", f"asked for {precision}, ran {ran}" if ran and ran != precision else str(precision))
    grid.add_row("run", str(run.directory.path))
    title = f"{settings['encoder']}-{settings['decoder']}, seed {settings['seed']}"
    return Panel(grid, title=title, title_align="left", border_style="green")
