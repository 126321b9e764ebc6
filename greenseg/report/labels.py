"""Texts for settings and sources: in a table, in a sentence, beside a point of a picture."""

from collections.abc import Sequence
from typing import Any

from greenseg.model_names import join_model
from greenseg.report.results import Result

MODEL = "model"
"""Encoder and decoder in one, if both differ."""


_FIRST = ("encoder", "decoder")
_SPEAKING = (MODEL, *_FIRST, "precision", "optimizer", "strategy")  # values that need no name
# Settings whose actual value may differ from the requested one.
_CHOSEN = ("precision", "batch_size", "lr", "workers", "accelerator", "power_limit", "gpu_clock")


def differing(results: Sequence[Result]) -> list[str]:
    """The settings in which the results differ, the network first. What has no effect in a result differs from none."""
    names = sorted(results[0].settings, key=lambda name: name not in _FIRST)
    first = {
        name: value for result in reversed(results) for name, value in result.settings.items() if value is not None
    }
    return [name for name in names if any(result.settings[name] not in (first.get(name), None) for result in results)]


def axes(names: Sequence[str]) -> list[str]:
    """The settings that distinguish configurations: those that differ, or network and precision if none differs.

    If encoder and decoder both differ, the single column `model` has both.
    """
    if not names:
        return [MODEL, "precision"]
    return [MODEL, *names[2:]] if tuple(names[:2]) == _FIRST else list(names)


def setting(result: Result, name: str) -> Any:
    """The requested value of a setting, or of `model`."""
    if name == MODEL:
        return join_model(result.settings["encoder"], result.settings["decoder"])
    return result.settings[name]


def ran(result: Result, name: str) -> list[Any]:
    """Distinct actual values; empty for settings that never differ from the request, and if nothing ran."""
    values = [getattr(run.ran, name) for run in result.runs] if name in _CHOSEN else []
    return list({value_text(value): value for value in values if value is not None}.values())


def setting_text(result: Result, name: str) -> str:
    """The requested value, and the actual one if it differs."""
    asked = value_text(setting(result, name))
    changed = sorted({value_text(value) for value in ran(result, name)} - {asked})
    return f"{asked} → {', '.join(changed)}" if changed else asked


def value_text(value: Any) -> str:
    """The text for a value of a setting."""
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "–"}[value]
    return str(value)


def label(result: Result, names: Sequence[str]) -> str:
    """A configuration in words, by the settings that distinguish it: `resnet18 bf16-mixed batch_size=16`."""
    parts = []
    for name in names:
        value = setting(result, name)
        speaks = name in _SPEAKING and value not in ("auto", "none")
        parts.append(setting_text(result, name) if speaks else f"{name}={setting_text(result, name)}")
    return " ".join(parts)


def source(result: Result) -> str:
    """Sources of the joules: `nvml + rapl`, or by component if some are estimated and others measured."""
    components: dict[str, list[str]] = {}
    for component, name in result.sources.items():
        components.setdefault(name, []).append(component)
    if result.estimated and len(components) > 1:
        text = ", ".join(f"{name} ({' '.join(parts)})" for name, parts in components.items())
    else:
        text = " + ".join(components)
    unknown = [f"{component} unknown" for component in result.unmeasured]
    return ", ".join([text or "none", *sorted(result.marks), *unknown])
