"""How settings and sources are written: in a table, in a sentence, beside a point of a picture."""

from collections.abc import Sequence
from typing import Any

from greenseg.model_names import join_model
from greenseg.report.results import Result

MODEL = "model"
"""Encoder and decoder in one, where both differ."""


_FIRST = ("encoder", "decoder")
_SPEAKING = (MODEL, *_FIRST, "precision", "optimizer", "strategy")  # values that say whose they are
# What runs may be another value than the one asked for.
_CHOSEN = ("precision", "batch_size", "lr", "workers", "accelerator", "power_limit", "gpu_clock")


def differing(results: Sequence[Result]) -> list[str]:
    """The settings in which the results differ, the network first."""
    names = sorted(results[0].settings, key=lambda name: name not in _FIRST)
    first = results[0].settings
    return [name for name in names if any(result.settings[name] != first[name] for result in results)]


def axes(names: Sequence[str]) -> list[str]:
    """What to tell configurations apart by: the settings that differ, or network and precision where none does.

    Where encoder and decoder both differ, one column holds both: `model`.
    """
    if not names:
        return [MODEL, "precision"]
    return [MODEL, *names[2:]] if tuple(names[:2]) == _FIRST else list(names)


def setting(result: Result, name: str) -> Any:
    """The value asked for; of `model`, too."""
    if name == MODEL:
        return join_model(result.settings["encoder"], result.settings["decoder"])
    return result.settings[name]


def ran(result: Result, name: str) -> list[Any]:
    """What ran, each value once; empty for settings that always run as asked for, and where nothing ran."""
    values = [getattr(run.ran, name) for run in result.runs] if name in _CHOSEN else []
    return list({value_text(value): value for value in values if value is not None}.values())


def setting_text(result: Result, name: str) -> str:
    """The value asked for, and what ran instead where that differs."""
    asked = value_text(setting(result, name))
    changed = sorted({value_text(value) for value in ran(result, name)} - {asked})
    return f"{asked} → {', '.join(changed)}" if changed else asked


def value_text(value: Any) -> str:
    """A value of a setting."""
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "–"}[value]
    return str(value)


def label(result: Result, names: Sequence[str]) -> str:
    """A configuration in words, by the settings that tell it from others: `resnet18 bf16-mixed batch_size=16`."""
    parts = []
    for name in names:
        value = setting(result, name)
        speaks = name in _SPEAKING and value not in ("auto", "none")
        parts.append(setting_text(result, name) if speaks else f"{name}={setting_text(result, name)}")
    return " ".join(parts)


def source(result: Result) -> str:
    """Where the joules come from: `nvml + rapl`, or by component where one was estimated and another measured."""
    components: dict[str, list[str]] = {}
    for component, name in result.sources.items():
        components.setdefault(name, []).append(component)
    if result.estimated and len(components) > 1:
        text = ", ".join(f"{name} ({' '.join(parts)})" for name, parts in components.items())
    else:
        text = " + ".join(components)
    unknown = [f"{component} unknown" for component in result.unmeasured]
    return ", ".join([text or "none", *sorted(result.marks), *unknown])
