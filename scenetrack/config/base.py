"""Base classes of the settings: fields, range checks, conversion to text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_type_hints

from scenetrack.config.names import LONGEST_EXPERIMENT, check_name
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
    """Return a config field with its default, help text, and inclusive range or choices.

    Range and choices of a list apply to each of its items.
    ``short`` is a second flag of one letter (``-o``).
    """
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices), "short": short}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EntryPointConfig:
    """Base of all configs: no settings of its own, but checks, presets and conversion to text."""

    stage: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Whether held-out images choose the classifier, so that it needs some in the end too.
    chooses_on_held_out: ClassVar[bool] = False
    # By setting: the values of other settings without which it is ignored.
    conditions: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {}

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            check_value(item, getattr(self, item.name))
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError where two settings contradict each other."""

    @property
    def opens_run(self) -> bool:
        """Whether the runner opens an MLflow run for the entry point."""
        return False

    @property
    def resumed_run(self) -> str:
        """Id of the run whose training is resumed; empty: none."""
        return ""

    @property
    def seeds(self) -> int:
        """Number of seeds to run the stage with, a child run each."""
        return 1

    @property
    def data_name(self) -> str:
        """Name of the data set that methods are learnt from; empty: none."""
        return ""

    @classmethod
    def from_values(cls, values: Mapping[str, Any], preset: str = "") -> Self:
        """Return the config of ``preset`` (the defaults where it is empty), changed by ``values``.

        Raises:
            ConfigError: a preset or name is unknown, or a value is out of range.
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
        """Return every setting as text for MLflow: lists with commas, lower-case true and false."""
        return {
            item.name: format_value(getattr(self, item.name)) for item in dataclasses.fields(self)
        }


@dataclass(frozen=True)
class StageConfig(EntryPointConfig):
    """Settings of a stage, which logs to an MLflow run of its own."""

    seed: int = param(0, "Seed of all random numbers.", low=0, high=2**31 - 1)
    experiment: str = param("scenetrack", "MLflow experiment to log to.")

    def validate(self) -> None:
        super().validate()
        check_name("experiment", self.experiment, LONGEST_EXPERIMENT)

    @property
    def opens_run(self) -> bool:
        return True


@dataclass(frozen=True)
class DataConfig(StageConfig):
    """Settings of a stage that reads a data set."""

    data: str = param(
        "demo", "Data set: demo, mit8, or a folder of train/CLASS and test/CLASS, or of CLASS."
    )
    skip_bad: bool = param(False, "Skip unreadable images and log a list of them.")
    drop_duplicates: bool = param(
        False, "Leave out training images that are also in test, and log a list of them."
    )

    @property
    def data_name(self) -> str:
        return self.data


# The settings of a data config, which a study and its trials, or a job and its tasks, share.
DATA_SETTINGS = ("data", "skip_bad", "drop_duplicates", "seed", "experiment")


@dataclass(frozen=True)
class DeviceConfig(EntryPointConfig):
    """Settings of an entry point that runs ONNX models."""

    device: str = param(
        "auto",
        "Device of ONNX Runtime; auto and gpu: the GPU if it is available, else the CPU.",
        choices=DEVICES,
    )
    require_gpu: bool = param(False, "Fail instead of falling back to the CPU.")

    def validate(self) -> None:
        super().validate()
        if self.require_gpu and self.device == "cpu":
            raise ConfigError("require_gpu contradicts device cpu: leave one of them out")


def field_types(config: type[EntryPointConfig]) -> dict[str, Any]:
    """Return the resolved type of each field: int, float, bool, str or a tuple of one of them."""
    hints = get_type_hints(config)
    return {item.name: hints[item.name] for item in dataclasses.fields(config)}


def format_value(value: object) -> str:
    """Return a setting as command-line text: ``(1024, 512)`` -> ``1024,512``, () -> ``none``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(format_value(item) for item in value) or "none"
    return str(value)


def check_value(item: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError if ``value`` is out of the field's range or is none of its choices."""
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
