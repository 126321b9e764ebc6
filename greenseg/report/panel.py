"""The panel at the end of a single run."""

import math
from collections.abc import Iterator

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from greenseg.energy import Reading
from greenseg.energy.slurm import SLURM_NODE
from greenseg.machine.levers import LEVERS
from greenseg.model_names import join_model
from greenseg.report.labels import value_text
from greenseg.report.run import Run
from greenseg.report.units import count, duration, joules, number
from greenseg.runs.record import ClassScores
from greenseg.runs.summary import APART, RESUMPTION
from greenseg.settings import Settings


def run_panel(run: Run) -> Panel:
    """The results, cost and directory of a finished run."""
    metrics, energy, settings = run.metrics, run.energy, run.settings
    precision, ran = settings["precision"], run.ran.precision
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    epochs = metrics.epochs or 0
    best = f"at epoch {metrics.best_epoch + 1} of {epochs}, the best" if epochs else "of the converted network"
    grid.add_row(
        "Dice",
        "–"
        if metrics.dice is None
        else f"{metrics.dice:.4f}  mean over {count(len(metrics.volume_dice), 'volume')}, {best}",
    )
    if not metrics.on_grid and metrics.epoch_dice is not None:
        grid.add_row("on the grid", f"{metrics.epoch_dice:.4f}  Dice on the training grid, which chose this epoch")
    wanted = Settings.model_validate(dict(settings)).own_epochs
    if epochs < wanted:
        grid.add_row("stopped early", f"after {epochs} of {count(wanted, 'epoch')}")
    grid.add_row("IoU", "–" if metrics.iou is None else f"{metrics.iou:.4f}")
    if metrics.hd95 is not None:
        grid.add_row("HD95", f"{metrics.hd95:.2f} mm")
    for name, scores in metrics.classes.items():
        grid.add_row(Text(name), _class_text(scores))
    if (test := run.record.test).dice is not None:
        subjects = f"mean over {count(len(test.volume_dice), 'test volume')}, which chose nothing"
        grid.add_row("test Dice", f"{test.dice:.4f}  {subjects}")
    phases = run.record.energy.phases if run.record.energy else {}
    for reading in energy.readings:
        grid.add_row(f"{reading.component} energy", reading_text(reading))
    for node in [attempt.slurm_node for attempt in run.record.attempts if attempt.slurm_node]:
        about = f"of all nodes of job step {node.step} in {duration(node.seconds)}; not part of the total"
        grid.add_row(SLURM_NODE, f"{joules(node.joules)}  {about}")
    for component in run.unmeasured:
        grid.add_row(f"{component} energy", "unknown: no sensor (see sensors_missing in run.json)")
    by_phase = {name: sum(sum(c.values()) for c in e["joules"].values()) for name, e in phases.items()}
    shares = ", ".join(f"{name} {joules(value)}" for name, value in by_phase.items() if name not in APART)
    grid.add_row("total energy", f"{joules(energy.joules)}  ({shares})")
    for ancestor in run.record.lineage.ancestors:
        grid.add_row(ancestor.role, ancestor.directory)
    if run.tested:
        grid.add_row("test energy", f"{joules(run.tested.joules)}  not part of the total")
    if RESUMPTION in by_phase:
        grid.add_row("resumptions", f"{joules(by_phase[RESUMPTION])}  to start up after pauses; not part of the total")
    warm_up = settings.get("measure_after", 0)
    ended = f"  over all epochs: the run ended within measure_after {warm_up}" if 0 < epochs <= warm_up else ""
    if epochs:
        grid.add_row("per epoch", joules(metrics.joules_per_epoch) + ended)
    if after := metrics.joules_after_best:
        grid.add_row("after the best", f"{joules(after)}  in epochs without a better Dice")
    if epochs:
        grid.add_row("per slice", joules(metrics.joules_per_slice))
    if target := metrics.energy_to_dice:
        reached = joules(target.joules) if target.joules is not None else "not reached"
        grid.add_row(f"to Dice {target.dice:g}", reached)
    if carbon := metrics.co2e:
        grams, intensity = number(carbon.grams), carbon.grams_per_kwh
        grid.add_row("carbon", f"{grams} g CO2e  ({intensity:g} g/kWh, PUE {carbon.pue:g})")
    if cost := metrics.cost:
        grid.add_row("cost", f"{number(cost.price)}  ({cost.price_per_kwh:g} per kWh, PUE {cost.pue:g})")
    if above := metrics.joules_above_idle:
        grid.add_row("above idle", ", ".join(f"{component} {joules(value)}" for component, value in above.items()))
    grid.add_row("time", f"{duration(energy.seconds)}, {number(metrics.watts)} W on average")
    grid.add_row("parameters", f"{run.record.network.parameters:,}")
    grid.add_row("precision", f"{ran}, not {precision} as requested" if ran and ran != precision else str(precision))
    if 0 < epochs <= settings.get("freeze_encoder", 0):
        grid.add_row("encoder", "frozen in every epoch: it never learned")
    for row in _chosen(run):
        grid.add_row(*row)
    grid.add_row("run", str(run.directory.path))
    model = join_model(settings["encoder"], settings["decoder"])
    title = Text(f"{model}, seed {settings['seed']}")  # a Panel reads a plain string as markup
    return Panel(grid, title=title, title_align="left", border_style="green")


def reading_text(reading: Reading) -> str:
    """The joules of a component with their source, marks and range."""
    text = f"{joules(reading.joules)}  source: {', '.join([reading.source, *sorted(reading.marks)])}"
    if reading.low < reading.high:
        text += f", between {joules(reading.low)} and {joules(reading.high)}"
    return text


def _class_text(scores: ClassScores) -> str:
    shown = [("Dice", scores.dice, 4, ""), ("IoU", scores.iou, 4, ""), ("HD95", scores.hd95, 2, " mm")]
    known = [f"{name} {value:.{digits}f}{unit}" for name, value, digits, unit in shown if value is not None]
    return ", ".join(known) or "in no validation subject"


def _chosen(run: Run) -> Iterator[tuple[str, str]]:
    """The choices of `auto` with reasons, the actual number of slices per step, and the GPU limits."""
    probes, ran, settings = run.record.probes, run.ran, run.settings
    limits = {name: value for name, value in ran.given().items() if name in LEVERS}
    if limited := [f"{name} {value_text(value)} {LEVERS[name].unit}" for name, value in limits.items()]:
        yield "limits", ", ".join(limited)
    if sizes := probes.batch_size:
        rows = [
            f"{row.batch_size}: {'out of memory' if row.out_of_memory else joules(row.joules_per_slice)}"
            for row in sizes
        ]
        yield "batch size", f"{ran.batch_size}, with the fewest joules per slice ({', '.join(rows)})"
    if ran.batch_size and ran.effective_batch_size and ran.effective_batch_size != ran.batch_size:
        factors = {"devices": ran.devices, "nodes": ran.nodes, "accumulated": settings["accumulate"]}
        parts = [str(ran.batch_size), *(f"{factor} {name}" for name, factor in factors.items() if factor > 1)]
        slices = ran.effective_batch_size
        limit = ", limited by the epoch" if slices < ran.batch_size * math.prod(factors.values()) else ""
        yield "per step", f"{slices} slices ({' × '.join(parts)}{limit})"
    if rates := probes.lr:
        low, high = rates[0].lr, rates[-1].lr
        yield (
            "learning rate",
            f"{ran.lr:g}, at the steepest fall of the loss ({low:g} to {high:g} in {len(rates)} steps)",
        )
    if tried := probes.workers:
        batches = ", ".join(f"{number}: {seconds * 1e3:.1f} ms" for number, seconds in tried.batch.items())
        yield "workers", f"{ran.workers} (per step {tried.step * 1e3:.1f} ms; per batch {batches})"
