"""Rows by class of hardware: joules of different machines are not comparable.

A class is a CPU, the models of the GPUs and the memory as a power of two. The number of cores and of GPUs that a run
saw is no part of it: both depend on the slot of a sweep. A run that saw no GPU is in the class of the other runs on its
host if there is only one. Machines with different names and the same hardware are one class.

Configurations are split by class, as they are by content: a configuration with repeats on two classes has two rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from greenseg.report.results import HARDWARE, UNKNOWN, Result
from greenseg.report.run import Run


class _Class(NamedTuple):
    """A class of hardware; all are empty if the record has none."""

    cpu: str
    gpus: tuple[str, ...]
    memory: int | None  # GB, a power of two


def by_hardware(results: Sequence[Result]) -> list[Result]:
    """The results, split by class of hardware, with the setting `hardware`; unchanged if all finished runs have one."""
    runs = [run for result in results for run in result.runs]
    classes = _classes(runs)
    if len({classes[id(run)] for run in runs if run.status == "finished"}) < 2:
        return list(results)
    names = _names(sorted({*classes.values()}, key=repr))
    found = []
    for result in results:
        parts: dict[_Class, list[Run]] = {}
        for run in result.runs:
            parts.setdefault(classes[id(run)], []).append(run)
        for hardware, members in parts.items():
            where = {**result.where, HARDWARE: names[hardware]}
            found.append(Result(tuple(members), where, result.content))
    return found


def _classes(runs: Sequence[Run]) -> dict[int, _Class]:
    """id of a run → its class."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for run in runs:
        hardware = run.record.hardware
        of = hardware.host, hardware.cpu or "", tuple(hardware.gpus or ()), hardware.memory_gb
        alike.setdefault(of, []).append(id(run))
    known: list[tuple[str | None, _Class, list[int]]] = []
    on_host: dict[tuple[str | None, str, int | None], set[tuple[str, ...]]] = {}
    for (host, cpu, gpus, gb), members in alike.items():
        found = _Class(cpu, tuple(sorted(set(gpus))), 2 ** round(math.log2(gb)) if gb else None)
        known.append((host, found, members))
        on_host.setdefault((host, cpu, found.memory), set()).add(found.gpus)
    classes: dict[int, _Class] = {}
    for host, found, members in known:
        seen = [gpus for gpus in on_host[host, found.cpu, found.memory] if gpus]
        whole = found._replace(gpus=seen[0]) if not found.gpus and len(seen) == 1 else found
        classes |= dict.fromkeys(members, whole)
    return classes


def _names(classes: Sequence[_Class]) -> dict[_Class, str]:
    """A name for each class: its GPUs, or its CPU without any; longer if two classes would have the same."""
    forms: list[Callable[[_Class], str]] = [
        lambda one: " + ".join(one.gpus) or one.cpu or UNKNOWN,
        lambda one: ", ".join(filter(None, [one.cpu, *one.gpus])) or UNKNOWN,
        lambda one: ", ".join([one.cpu or UNKNOWN, *one.gpus, f"{one.memory} GB" if one.memory else "unknown memory"]),
    ]
    for form in forms:
        names = {one: form(one) for one in classes}
        if len({*names.values()}) == len(classes):
            break
    return names
