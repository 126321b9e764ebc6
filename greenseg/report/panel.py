"""The panel at the end of a single run."""

import math
from collections.abc import Iterator

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from greenseg.machine.levers import LEVERS
from greenseg.model_names import join_model
from greenseg.report.labels import value_text
from greenseg.report.run import Run
from greenseg.report.units import count, duration, joules, number


def run_panel(run: Run) -> Panel:
    """The results, cost and directory of a finished run."""
    metrics, energy, settings = run.metrics, run.energy, run.settings
    precision, ran = settings["precision"], run.ran.get("precision")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    dice, iou = metrics.get("dice"), metrics.get("iou")
    best = f"at epoch {metrics.get('best_epoch', 0) + 1} of {metrics['epochs']}, the best"
    grid.add_row(
        "Dice",
        "–" if dice is None else f"{dice:.4f}  mean over {count(len(metrics['volume_dice']), 'volume')}, {best}",
    )
    if metrics["epochs"] < settings["epochs"]:
        grid.add_row("stopped early", f"after {metrics['epochs']} of {count(settings['epochs'], 'epoch')}")
    grid.add_row("IoU", "–" if iou is None else f"{iou:.4f}")
    if (hd95 := metrics.get("hd95")) is not None:
        grid.add_row("HD95", f"{hd95:.2f} mm")
    phases = run.record["energy"]["phases"]
    for reading in energy.readings:
        text = f"{joules(reading.joules)}  source: {', '.join([reading.source, *sorted(reading.marks)])}"
        if reading.low < reading.high:
            text += f", between {joules(reading.low)} and {joules(reading.high)}"
        grid.add_row(f"{reading.component} energy", text)
    for component in run.unmeasured:
        grid.add_row(f"{component} energy", "unknown: no sensor (see sensors_missing in run.json)")
    shares = ", ".join(
        f"{name} {joules(sum(sum(c.values()) for c in e['joules'].values()))}" for name, e in phases.items()
    )
    grid.add_row("total energy", f"{joules(energy.joules)}  ({shares})")
    warm_up = settings.get("measure_after", 0)
    ended = (
        f"  over all epochs: the run ended within measure_after {warm_up}" if 0 < metrics["epochs"] <= warm_up else ""
    )
    grid.add_row("per epoch", joules(metrics.get("joules_per_epoch")) + ended)
    if after := metrics.get("joules_after_best"):
        grid.add_row("after the best", f"{joules(after)}  in epochs without a better Dice")
    grid.add_row("per slice", joules(metrics.get("joules_per_slice")))
    target = metrics.get("energy_to_dice", {})
    if target:
        reached = joules(target["joules"]) if target["joules"] is not None else "not reached"
        grid.add_row(f"to Dice {target['dice']:g}", reached)
    if carbon := metrics.get("co2e"):
        grams, intensity = number(carbon["grams"]), carbon["grams_per_kwh"]
        grid.add_row("carbon", f"{grams} g CO2e  ({intensity:g} g/kWh, PUE {carbon['pue']:g})")
    if cost := metrics.get("cost"):
        grid.add_row("cost", f"{number(cost['price'])}  ({cost['price_per_kwh']:g} per kWh, PUE {cost['pue']:g})")
    if above := metrics.get("joules_above_idle"):
        grid.add_row("above idle", ", ".join(f"{component} {joules(value)}" for component, value in above.items()))
    grid.add_row("time", f"{duration(energy.seconds)}, {number(metrics.get('watts'))} W on average")
    grid.add_row("parameters", f"{run.record['network']['parameters']:,}")
    grid.add_row("precision", f"{ran}, not {precision} as requested" if ran and ran != precision else str(precision))
    if 0 < metrics["epochs"] <= settings.get("freeze_encoder", 0):
        grid.add_row("encoder", "frozen in every epoch: it never learned")
    for row in _chosen(run):
        grid.add_row(*row)
    grid.add_row("run", str(run.directory.path))
    model = join_model(settings["encoder"], settings["decoder"])
    title = Text(f"{model}, seed {settings['seed']}")  # a Panel reads a plain string as markup
    return Panel(grid, title=title, title_align="left", border_style="green")


def _chosen(run: Run) -> Iterator[tuple[str, str]]:
    """The choices of `auto` with reasons, the actual number of slices per step, and the GPU limits."""
    probes, ran, settings = run.record.get("probes", {}), run.ran, run.settings
    if limited := [f"{name} {value_text(ran[name])} {lever.unit}" for name, lever in LEVERS.items() if name in ran]:
        yield "limits", ", ".join(limited)
    if tried := probes.get("batch_size"):
        rows = [
            f"{row['batch_size']}: {'out of memory' if 'out_of_memory' in row else joules(row['joules_per_slice'])}"
            for row in tried
        ]
        yield "batch size", f"{ran['batch_size']}, with the fewest joules per slice ({', '.join(rows)})"
    if ran.get("effective_batch_size", ran.get("batch_size")) != ran.get("batch_size"):
        factors = {"devices": ran["devices"], "nodes": ran.get("nodes", 1), "accumulated": settings["accumulate"]}
        parts = [str(ran["batch_size"]), *(f"{factor} {name}" for name, factor in factors.items() if factor > 1)]
        slices = ran["effective_batch_size"]
        limit = ", limited by the epoch" if slices < ran["batch_size"] * math.prod(factors.values()) else ""
        yield "per step", f"{slices} slices ({' × '.join(parts)}{limit})"
    if tried := probes.get("lr"):
        low, high = tried[0]["lr"], tried[-1]["lr"]
        yield (
            "learning rate",
            f"{ran['lr']:g}, at the steepest fall of the loss ({low:g} to {high:g} in {len(tried)} steps)",
        )
    if tried := probes.get("workers"):
        batches = ", ".join(f"{number}: {seconds * 1e3:.1f} ms" for number, seconds in tried["batch"].items())
        yield "workers", f"{ran['workers']} (per step {tried['step'] * 1e3:.1f} ms; per batch {batches})"
