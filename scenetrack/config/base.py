"""What the settings of every entry point have in common: fields, their checks, their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_type_hints

from scenetrack.errors import ConfigError

DEVICES = ("auto", "cpu", "gpu")
COLOURS = ("grey", "opponent")
# Ways to compute one layer on all patches of an image; see scenetrack.export.dense.
DENSE_FORMS = ("patches", "conv", "space_to_depth")


def param(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    short: str = "",
) -> Any:
    """A config field: its default, what it means, and its inclusive range or its choices.

    For a field that holds several values the range and the choices apply to each of them.
    ``short`` is a second flag of one letter (``-o``).
    """
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices), "short": short}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EntryPointConfig:
    """What every entry point takes: nothing yet, but checked and printed in one way."""

    stage: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Whether held-out images choose the classifier, so that it needs some in the end too.
    chooses_on_held_out: ClassVar[bool] = False
    # Values of other settings with which a setting is read at all.
    conditions: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {}

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check_value(item, getattr(self, item.name))
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError where two settings contradict each other."""

    @property
    def opens_run(self) -> bool:
        """Whether the runner opens an MLflow run for it."""
        return False

    @property
    def resumed_run(self) -> str:
        """Id of the run whose training goes on; empty: none."""
        return ""

    @property
    def seeds(self) -> int:
        """Number of seeds to run it with, a child run each."""
        return 1

    @property
    def data_name(self) -> str:
        """The data set that its methods are learnt from; empty: none."""
        return ""

    @classmethod
    def from_values(cls, values: Mapping[str, Any], preset: str = "") -> Self:
        """The config of ``preset`` (the defaults where it is empty), changed by ``values``.

        Raises:
            ConfigError: an unknown preset or name, or a value out of range.
        """
        if preset and preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise ConfigError(f"preset must be one of: {known}. Received: {preset!r}")
        merged = {**(cls.presets[preset] if preset else {}), **values}
        unknown = sorted(set(merged) - {item.name for item in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"{cls.stage} has no parameter {unknown[0]!r}")
        if "preset" in {item.name for item in dataclasses.fields(cls)}:
            merged["preset"] = preset
        return cls(**merged)

    def as_params(self) -> dict[str, str]:
        """Every setting as MLflow shows it: lists with commas, true and false in lower case."""
        return {
            item.name: format_value(getattr(self, item.name)) for item in dataclasses.fields(self)
        }


@dataclass(frozen=True)
class StageConfig(EntryPointConfig):
    """A stage, which tracks its work in an MLflow run of its own."""

    seed: int = param(0, "Seed of everything that draws.", low=0, high=2**31 - 1)
    experiment: str = param("scenetrack", "MLflow experiment to log to.")

    @property
    def opens_run(self) -> bool:
        return True


@dataclass(frozen=True)
class DataConfig(StageConfig):
    """A stage that reads a data set."""

    data: str = param(
        "demo", "Data set: demo, mit8, or a folder of train/CLASS and test/CLASS, or of CLASS."
    )
    skip_bad: bool = param(False, "Go on without unreadable images and log their list.")

    @property
    def data_name(self) -> str:
        return self.data


@dataclass(frozen=True)
class DeviceConfig(EntryPointConfig):
    """An entry point that runs ONNX models."""

    device: str = param(
        "auto",
        "Where ONNX Runtime runs: auto and gpu take the GPU where it starts and else the CPU.",
        choices=DEVICES,
    )
    require_gpu: bool = param(False, "Fail rather than fall back to the CPU.")

    def validate(self) -> None:
        super().validate()
        if self.require_gpu and self.device == "cpu":
            raise ConfigError("require_gpu contradicts device cpu: leave one of them out")


def field_types(config: type[EntryPointConfig]) -> dict[str, Any]:
    """The resolved type of each field: int, float, bool, str or a tuple of one of them."""
    hints = get_type_hints(config)
    return {item.name: hints[item.name] for item in dataclasses.fields(config)}


def format_value(value: object) -> str:
    """A setting as the command line takes it: ``(1024, 512)`` -> ``1024,512``, () -> ``none``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(format_value(item) for item in value) or "none"
    return str(value)


def check_value(item: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError where ``value`` is out of a field's range or is none of its choices."""
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    if choices and isinstance(value, tuple) and len(set(value)) < len(value):
        raise ConfigError(f"{item.name} must name each choice once. Received: {','.join(value)}")
    for single in value if isinstance(value, tuple) else (value,):
        if choices and single not in choices:
            raise ConfigError(
                f"{item.name} must be one of: {', '.join(choices)}. Received: {single!r}"
            )
        if low is not None and not low <= single:
            raise ConfigError(f"{item.name} must be at least {low:.10g}. Received: {single}")
        if high is not None and not single <= high:
            raise ConfigError(f"{item.name} must be at most {high:.10g}. Received: {single}")
