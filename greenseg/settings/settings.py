"""Settings: the fields and their identity, made from mappings and files."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from greenseg.compression import DEFAULT_RUNTIME, NEUTRAL_RUNTIME, RUNTIMES, converted
from greenseg.errors import UserError
from greenseg.settings.fields import Fields, neutral
from greenseg.settings.identity import REPEATED, digest, trained, without
from greenseg.settings.problems import problems_of


class Settings(Fields):
    """All settings of one run; see `Fields`. Those that have no effect beside the others have their neutral value."""

    @model_validator(mode="after")
    def _leave_out_without_effect(self) -> Self:
        for name, value in self.without_effect().items():
            object.__setattr__(self, name, value)
        return self

    # ── identity

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, without the shorthand `model`; `Settings.of(resolved())` is this again."""
        return self.model_dump()

    @cached_property
    def identity(self) -> str:
        """Sixteen hex digits that name the run, seed included; see `trained`."""
        return digest(self.trained)

    @cached_property
    def configuration(self) -> str:
        """Like `identity`, without seed and fold: repeats share it."""
        return digest(without(self.trained, REPEATED))

    @property
    def trained(self) -> dict[str, Any]:
        """The settings that affect training; see the function `trained`."""
        return trained(self.__dict__)

    @cached_property
    def slug(self) -> str:
        """Name of the run's directory: the most important settings, then the identity."""
        parts = [
            self.model,
            self.precision,
            f"b{self.batch_size}",
            f"e{self.epochs}",
            f"s{self.seed}",
            *self._compression,
            self.identity,
        ]
        return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts))

    # ── compression

    @property
    def converts(self) -> bool:
        """Whether the run only converts the network of its parent, without any training."""
        return converted(self.quantize, self.runtime)

    @property
    def predicts_on_cpu(self) -> bool:
        """Whether the trained network predicts on the CPU, whatever device it was trained on."""
        return RUNTIMES[self.runtime].on_cpu

    @property
    def own_epochs(self) -> int:
        """The epochs that the run itself trains, without those of its parent."""
        if self.converts:
            return 0
        return self.finetune_epochs if self.prune else self.epochs

    def changed(self, **values: Any) -> "Settings":
        """A copy with other, valid values. Unlike `model_copy`, it does not keep the identity."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return Settings.model_construct(**kept | values)

    @property
    def _compression(self) -> list[str]:
        """The settings of compression that are not neutral, in short."""
        parts = {
            "distilled": bool(self.teacher),
            f"pruned{self.prune:g}": self.prune > 0,
            self.quantize: self.quantize != "none",
            self.runtime: self.runtime not in (NEUTRAL_RUNTIME, DEFAULT_RUNTIME[self.quantize]),
        }
        return [name for name, shown in parts.items() if shown]

    # ── making

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping of names to values.

        Raises:
            UserError: lists every unknown name, wrong type, wrong value and combination that is not valid.
        """
        problems = problems_of(values)
        if problems:
            raise UserError([str(problem) for problem in problems])
        return cls.model_validate(values)


NEUTRAL = {name: neutral(name) for name, field in Settings.model_fields.items() if not field.exclude}
"""Setting → the value that keeps the behaviour from before the setting existed, for records without it."""


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """`lower`, overridden by `upper`. A `model` in `upper` replaces an encoder and a decoder in `lower`."""
    hidden = {"encoder", "decoder"} if "model" in upper else set()
    return {key: value for key, value in lower.items() if key not in hidden} | dict(upper)


class Overlays:
    """Applies many sets of overrides to one base. It is fast because it does not repeat the validation.

    Args:
        base: valid settings.
    """

    _NETWORK = ("model", "encoder", "decoder")

    def __init__(self, base: Mapping[str, Any]) -> None:
        # As written: a setting without effect in the base may have one in a combination.
        self._base = Settings.model_construct(**vars(Fields.model_validate(base)))
        self._network = {name: base[name] for name in self._NETWORK if name in base}
        self._networks: dict[tuple[str | None, ...], dict[str, str]] = {}

    def over(self, values: Mapping[str, Any]) -> Settings:
        """Returns the same as `Settings.model_validate(overlay(base, values))`.

        Args:
            values: valid settings, in the form that `canonical` returns.
        """
        if values.keys().isdisjoint(self._NETWORK):
            return _effective(self._base.model_copy(update=values))
        key = tuple(values.get(name) for name in self._NETWORK)
        if key not in self._networks:
            given = {name: value for name, value in zip(self._NETWORK, key, strict=True) if value is not None}
            network = Settings.model_validate(overlay(self._network, given))
            self._networks[key] = {name: getattr(network, name) for name in self._NETWORK}
        return _effective(self._base.model_copy(update={**values, **self._networks[key]}))


def _effective(settings: Settings) -> Settings:
    """Settings without values that have no effect; see `Fields.without_effect`."""
    changes = settings.without_effect()
    return settings.model_copy(update=changes) if changes else settings


def canonical(name: str, value: Any) -> Any:
    """A setting's value as `Settings` keeps it (aliases resolved, paths cleaned), so that equal values compare equal.

    Raises:
        UserError: there is no such setting, or the value is not valid.
    """
    problem = next((problem for problem in problems_of({name: value}) if problem.key is not None), None)
    if problem:  # combinations are judged when they are complete; here, only the value itself counts
        raise UserError(problem.message)
    # Empty means: the half of another layer's `model`, which is unknown here.
    return getattr(Fields.model_validate({name: value}), name) if value != "" else ""


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file such as a run's config.yaml.

    Raises:
        UserError: not YAML, not a mapping, or wrong settings; each problem with file, line and column.
    """
    from greenseg import yamlfile

    document = yamlfile.load(path)
    if not isinstance(document.value, dict):
        raise UserError(f"{document.where()}: a configuration is a mapping of settings to values")
    settings = {str(key): value for key, value in document.value.items()}
    problems = problems_of(settings)
    if problems:
        key_of: dict[str | None, Any] = {str(key): key for key in document.value}
        raise UserError([f"{document.where(key_of.get(problem.key))}: {problem}" for problem in problems])
    return settings
