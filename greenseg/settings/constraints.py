"""Constraints between settings that hold on every machine."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from greenseg import model_names as names
from greenseg.compression import RUNTIMES, engine
from greenseg.optimizers import OPTIMIZERS
from greenseg.precisions import PRECISIONS
from greenseg.settings.fields import Fields
from greenseg.strategies import LIMITED, STRATEGIES

Run = TypeVar("Run", bound=Fields)


@dataclass(frozen=True)
class Constraint:
    """A constraint between settings.

    Attributes:
        settings: names of the settings; the one to blame comes first.
        check: takes their values and returns the problem as text, or None.
    """

    settings: tuple[str, ...]
    check: Callable[..., str | None]


def _network_exists(decoder: str, encoder: str, model: str) -> str | None:
    reason = names.incompatible(encoder, decoder)
    return reason and f"{model}: {reason}"


def _fold_exists(fold: int, folds: int) -> str | None:
    if folds == 1:
        return "folds: 1 fold leaves no subject to train on; use 2 or more, or 0 for no cross-validation"
    if fold < max(folds, 1):
        return None
    return f"fold: {fold} of {folds} folds; valid: {f'0 to {folds - 1}' if folds else '0, unless you also set folds'}"


def _split_is_named_once(split_from: str, folds: int, test_share: float) -> str | None:
    others = {f"folds: {folds}": folds, f"test_share: {test_share:g}": test_share}
    found = [name for name, is_set in others.items() if is_set]
    if not split_from or not found:
        return None
    return f"split_from: {split_from} names every split; it does not work with {' or '.join(found)}"


def _network_fits(
    decoder: str,
    model: str,
    image_size: int,
    batch_size: int,
    width: float,
    encoder_weights: str,
    decoder_width: int,
) -> str | None:
    reason = names.unfit(
        decoder,
        image_size=image_size,
        batch_size=batch_size,
        width=width,
        pretrained=encoder_weights != "none",
        decoder_width=decoder_width,
    )
    return reason and f"{model}: {reason}"


def _schedule_is_free(optimizer: str, schedule: str) -> str | None:
    if OPTIMIZERS[optimizer].schedules_itself and schedule != "constant":
        return f"optimizer: {optimizer} replaces a schedule; it needs schedule: constant"
    return None


def _encoder_freezes(freeze_encoder: int, encoder: str, decoder: str, devices: int, nodes: int) -> str | None:
    if freeze_encoder and not encoder:
        return f"freeze_encoder: {decoder} has no encoder to freeze"
    if freeze_encoder and devices * nodes > 1:  # ddp waits for every gradient
        return f"freeze_encoder: does not work with {'devices' if devices > 1 else 'nodes'}: more than 1"
    return None


def _epochs_are_measured(measure_after: int, epochs: int) -> str | None:
    if measure_after < epochs:
        return None
    return f"measure_after: {measure_after} of {epochs} epochs leaves no epoch to measure; valid: 0 to {epochs - 1}"


def _differentiates_twice(optimizer: str, precision: str, compile: bool, devices: int, nodes: int) -> str | None:
    wrong = {
        f"precision: {precision}": PRECISIONS[precision].scales_gradients,  # it would scale second derivatives, too
        "compile: true": compile,
        "devices: more than 1": devices > 1,  # each rank would estimate and step differently
        "nodes: more than 1": nodes > 1,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if not OPTIMIZERS[optimizer].needs_graph or not found:
        return None
    return f"optimizer: {optimizer} needs second derivatives; it does not work with {' or '.join(found)}"


def _checkpointing_works(gradient_checkpointing: bool, compile: bool, optimizer: str) -> str | None:
    wrong = {
        "compile: true": compile,  # torch.compile cannot trace it, and decides itself what to recompute
        # It would differentiate the backward pass a second time.
        f"optimizer: {optimizer}": OPTIMIZERS[optimizer].needs_graph is not None,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    return (
        f"gradient_checkpointing: does not work with {' or '.join(found)}" if gradient_checkpointing and found else None
    )


def _optimizer_is_here(optimizer: str) -> str | None:
    known = OPTIMIZERS[optimizer]
    if known.package and importlib.util.find_spec(known.package) is None:
        return f"optimizer: {optimizer} needs {known.package}: pip install 'greenseg[{known.extra}]'"
    return None


def _nodes_agree(nodes: int, batch_size: int | str, workers: int | str, lr: float | str) -> str | None:
    values = {"batch_size": batch_size, "workers": workers, "lr": lr}
    tried = [name for name, value in values.items() if value == "auto"]
    if nodes == 1 or not tried:
        return None
    return f"nodes: more than 1 does not work with {' or '.join(f'{name}: auto' for name in tried)}"


def _strategy_goes(strategy: str, devices: int, nodes: int, optimizer: str, *limited: Any) -> str | None:
    values = dict(zip(LIMITED, limited, strict=True))
    problem = STRATEGIES[strategy].problem(devices * nodes, optimizer, values)
    return problem and f"strategy: {strategy} {problem}"


def _runtime_has_numbers(quantize: str, runtime: str) -> str | None:
    reason = RUNTIMES[engine(runtime, quantize)].refuses.get(quantize)
    return reason and f"quantize: {quantize}: {reason}"


def _engine_is_here(quantize: str, runtime: str) -> str | None:
    name = engine(runtime, quantize)
    missing = [package for package in RUNTIMES[name].packages if importlib.util.find_spec(package) is None]
    return f"runtime: {name} needs {', '.join(missing)}: pip install 'greenseg[compress]'" if missing else None


def _one_process_compresses(prune: float, teacher: str, devices: int, nodes: int, strategy: str) -> str | None:
    named = [name for name, is_set in {f"prune: {prune:g}": prune, f"teacher: {teacher}": teacher}.items() if is_set]
    if not named or devices * nodes == 1:
        return None
    return f"{named[0]} does not work with {'devices' if devices > 1 else 'nodes'}: more than 1"


CONSTRAINTS = (
    Constraint(("decoder", "encoder", "model"), _network_exists),
    Constraint(
        ("decoder", "model", "image_size", "batch_size", "width", "encoder_weights", "decoder_width"), _network_fits
    ),
    Constraint(("fold", "folds"), _fold_exists),
    Constraint(("split_from", "folds", "test_share"), _split_is_named_once),
    Constraint(("optimizer", "schedule"), _schedule_is_free),
    Constraint(("freeze_encoder", "encoder", "decoder", "devices", "nodes"), _encoder_freezes),
    Constraint(("measure_after", "epochs"), _epochs_are_measured),
    Constraint(("optimizer", "precision", "compile", "devices", "nodes"), _differentiates_twice),
    Constraint(("gradient_checkpointing", "compile", "optimizer"), _checkpointing_works),
    Constraint(("optimizer",), _optimizer_is_here),
    Constraint(("nodes", "batch_size", "workers", "lr"), _nodes_agree),
    Constraint(("strategy", "devices", "nodes", "optimizer", *LIMITED), _strategy_goes),
    Constraint(("quantize", "runtime"), _runtime_has_numbers),
    Constraint(("quantize", "runtime"), _engine_is_here),
    Constraint(("prune", "teacher", "devices", "nodes", "strategy"), _one_process_compresses),
)
"""Constraints that hold on every machine."""


def violations(constraints: Iterable[Constraint], runs: Iterable[Run]) -> Iterator[tuple[Run, Constraint, str]]:
    """Violations of constraints: the first run with each violation, the constraint, and its message.

    A constraint checks each distinct combination of its settings once.
    """
    constraints = list(constraints)
    of_interest = values_of(sorted({name for constraint in constraints for name in constraint.settings}))
    known = [(constraint, values_of(constraint.settings), set[Any]()) for constraint in constraints]
    distinct: dict[Any, Run] = {}
    for run in runs:
        distinct.setdefault(of_interest(run), run)
    for run in distinct.values():
        for constraint, relevant, seen in known:
            values = relevant(run)
            if values in seen:
                continue
            seen.add(values)
            message = constraint.check(*values)
            if message:
                yield run, constraint, message


def values_of(names: Sequence[str]) -> Callable[[Fields], tuple[Any, ...]]:
    """A fast function that returns the values of these settings."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda settings: tuple(getattr(settings, name) for name in names)
