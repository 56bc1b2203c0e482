"""Entry points run from Python, and finished runs compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, get_args

from scenetrack.config import ENTRY_POINTS, EntryPointConfig
from scenetrack.config.base import field_types
from scenetrack.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas as pd

    from scenetrack.evaluation import Evaluation

# By type of a setting: the Python values that stand for it, and their name in messages. NumPy's
# numbers are among them, True and False are no numbers.
_KINDS: dict[type, tuple[Any, str]] = {
    bool: ((bool,), "True or False"),
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    str: ((str, os.PathLike), "a text"),
}


class Figures(Mapping[str, bytes]):
    """The figures of a run by name, such as ``learning_curves``: PNG files, read when asked for."""

    def __init__(self, run_id: str) -> None:
        from scenetrack.tracking import run_figures

        self._files = run_figures(run_id) if run_id else {}

    def __getitem__(self, name: str) -> bytes:
        return self._files[name].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class Result:
    """What an entry point found.

    Attributes:
        run_id: MLflow run; empty for an entry point that opens none.
        summary: what the command prints at the end.
        methods: figures of each finished method, such as ``test/accuracy``, by its name.
        metrics: figures of the run itself.
        evaluations: the test of each finished method by its name.
    """

    run_id: str = ""
    summary: str = ""
    methods: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each finished method, one column for each figure."""
        import pandas as pd

        table = pd.DataFrame.from_dict({k: dict(v) for k, v in self.methods.items()}, "index")
        return table.rename_axis("method")

    @property
    def figures(self) -> Figures:
        """The figures of the run by name, as PNG files."""
        return Figures(self.run_id)


def run(entry_point: str | EntryPointConfig, **settings: Any) -> Result:
    """Run an entry point as its command does, tracked in MLflow.

    Args:
        entry_point: name, such as ``"patch_bow"``, or a config of ``scenetrack.config``.
        **settings: of the entry point, under the names of the command's flags with underscores;
            ``preset`` is one of them. Lists may stand for tuples.

    Raises:
        ConfigError: an unknown entry point or setting, or a value of another type or out of range.
        ScenetrackError: the input cannot be used, or the work failed.
    """
    from scenetrack.workflow import runner

    outcome = runner.run(_config(entry_point, settings), given=tuple(settings))
    if outcome is None:
        return Result()
    return Result(
        outcome.run_id, outcome.summary, outcome.methods, outcome.metrics, outcome.evaluations
    )


def compare(*runs: str) -> pd.DataFrame:
    """Compare finished runs on the same test images.

    Args:
        *runs: ids; that of a stage, of several seeds or of ``main`` means every method below it.

    Returns:
        One row for each method, the most accurate first: accuracy with its 95% interval, macro
        F1 and expected calibration error.

    Raises:
        InputError: no run is named.
        ModelError: a run is not there, is not finished, or was tested on other images.
    """
    if not runs:
        raise InputError("at least one run id is required. Received: none")
    import pandas as pd

    from scenetrack.evaluation import method_table
    from scenetrack.stages.compare import evaluations_of

    table = method_table(evaluations_of(runs))
    return pd.DataFrame(list(table.rows), columns=list(table.columns)).set_index("method")


def _config(entry_point: str | EntryPointConfig, settings: Mapping[str, Any]) -> EntryPointConfig:
    if isinstance(entry_point, EntryPointConfig):
        if settings:
            raise ConfigError("settings go into the config or beside a name, not into both")
        return entry_point
    if not isinstance(entry_point, str) or entry_point not in ENTRY_POINTS:
        raise ConfigError(
            f"an entry point must be one of: {', '.join(ENTRY_POINTS)}. Received: {entry_point!r}"
        )
    config = ENTRY_POINTS[entry_point].config
    types = field_types(config)
    given = {k: _typed(k, v, types[k]) if k in types else v for k, v in settings.items()}
    preset = str(given.pop("preset", ""))
    return config.from_values(given, preset)


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Return a setting as int, float, bool, str, or a tuple of one of them.

    Raises:
        ConfigError: the value is of another type.
    """
    if items := get_args(kind):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list or a tuple. Received: {value!r}")
        return tuple(_typed(name, item, items[0]) for item in value)
    accepted, description = _KINDS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} must be {description}. Received: {value!r}")
    return os.fspath(value) if kind is str else kind(value)
