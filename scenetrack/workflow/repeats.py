"""A stage with several seeds: a child run for each, mean and standard deviation on the parent."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from scenetrack.config import DataConfig
from scenetrack.evaluation.comparison import aligned
from scenetrack.figures import draw_seed_spread
from scenetrack.records import Figure, Metric, Param, Table, Tracker
from scenetrack.system.terminal import say
from scenetrack.workflow.result import StageResult

FIGURES = {
    "test/accuracy": "test accuracy",
    "val/accuracy": "validation",
    "cv/accuracy": "cross-validation",
}
CHOSEN = "chosen inside train"

Results = Mapping[int, StageResult]


@dataclasses.dataclass(frozen=True)
class Spread:
    """One figure over the seeds: its mean, and its standard deviation with n - 1."""

    mean: float
    std: float


def repeated(
    stage: Callable[[Any, Tracker], StageResult], config: DataConfig, repeats: int, tracker: Tracker
) -> StageResult:
    """Run a stage with the seeds ``config.seed``, ``config.seed`` + 1, ... one after the other.

    Each is a child run named ``seed N``, whole in itself: killed on the way, the finished ones
    can be used. A folder that is split with the seed is split anew for each.

    Args:
        stage: of the entry point.
        config: its settings; each child has its own seed and ``repeats`` 1.
        repeats: number of seeds, at least 2.
        tracker: the parent run. It gets ``test/accuracy`` and ``test/accuracy_std`` of the method
            that each seed chose without the test images, and ``test/accuracy/METHOD`` and
            ``test/accuracy_std/METHOD`` of each method; ``val/accuracy`` and ``cv/accuracy`` alike.

    Raises:
        ConfigError: the last seed is out of range; no seed has run.
        ScenetrackError: a seed's work failed; those before it are finished.
    """
    changes: list[dict[str, Any]] = [
        {"seed": config.seed + k, "repeats": 1} for k in range(repeats)
    ]
    settings = [dataclasses.replace(config, **change) for change in changes]
    results: dict[int, StageResult] = {}
    for seed_config in settings:
        with tracker.child(f"seed {seed_config.seed}") as child:
            child.log(*(Param(name, value) for name, value in seed_config.as_params().items()))
            results[seed_config.seed] = stage(seed_config, child)
        say(f"seed {seed_config.seed}\n{results[seed_config.seed].summary}\n")
    spreads = spreads_of(results)
    records = _records(spreads)
    tracker.log(*records, _table(results), _picture(results, config.stage))
    figures = {record.name: record.value for record in records}
    first = next(iter(results.values())).run_id
    use = f"run {tracker.run_id}; to ship one seed: scenetrack bundle {first} -o scene.onnx"
    return StageResult(tracker.run_id, f"{_text(results, spreads)}\n{use}", metrics=figures)


def spreads_of(results: Results) -> dict[str, dict[str, Spread]]:
    """Return mean and deviation of each figure that every seed has, ``CHOSEN`` first.

    Args:
        results: of two seeds or more.
    """
    every = [{CHOSEN: result.metrics, **result.methods} for result in results.values()]
    spreads: dict[str, dict[str, Spread]] = {}
    for method in every[0]:
        of_seeds = [methods.get(method, {}) for methods in every]
        known = [name for name in FIGURES if all(name in figures for figures in of_seeds)]
        values = {name: [float(figures[name]) for figures in of_seeds] for name in known}
        spreads[method] = {
            name: Spread(statistics.fmean(of_figure), statistics.stdev(of_figure))
            for name, of_figure in values.items()
        }
    return spreads


def _records(spreads: Mapping[str, Mapping[str, Spread]]) -> list[Metric]:
    records = []
    for method, figures in spreads.items():
        suffix = "" if method == CHOSEN else f"/{method}"
        for name, spread in figures.items():
            records.append(Metric(f"{name}{suffix}", spread.mean))
            records.append(Metric(f"{name}_std{suffix}", spread.std))
    return records


def _table(results: Results) -> Table:
    """Tabulate every seed's figures, a row for each method."""
    rows = [
        (seed, result.run_id, method, *(figures.get(name) for name in FIGURES))
        for seed, result in results.items()
        for method, figures in result.methods.items()
    ]
    return Table("repeats.json", ("seed", "run", "method", *FIGURES), rows)


def _picture(results: Results, stage: str) -> Figure:
    """Draw the test accuracies of the methods that every seed has."""
    every = [result.methods for result in results.values()]
    shared = [name for name in every[0] if all(name in methods for methods in every)]
    accuracies = {name: [of_seed[name]["test/accuracy"] for of_seed in every] for name in shared}
    return draw_seed_spread(accuracies, f"{stage}: what the seed changes")


def _text(results: Results, spreads: Mapping[str, Mapping[str, Spread]]) -> str:
    """Return the methods, best first, and how to read the table."""
    methods = {name: figures for name, figures in spreads.items() if name != CHOSEN}
    ordered = sorted(methods.items(), key=lambda item: -item[1]["test/accuracy"].mean)
    if len(ordered) > 1:
        ordered.append((CHOSEN, spreads[CHOSEN]))
    shown = [name for name in FIGURES if any(name in figures for _, figures in ordered)]
    rows = [[method, *(_cell(figures, name) for name in shown)] for method, figures in ordered]
    lines = aligned([["method", *(FIGURES[name] for name in shown)], *rows])
    seeds = ", ".join(map(str, results))
    return "\n".join(
        [
            *lines,
            f"mean ± standard deviation of {len(results)} seeds ({seeds}): what another seed "
            "changes",
            "interval and p in each seed's own table: what other test images might change",
            *(f"seed {seed}: run {result.run_id}" for seed, result in results.items()),
        ]
    )


def _cell(figures: Mapping[str, Spread], name: str) -> str:
    if name not in figures:
        return ""
    spread = figures[name]
    return f"{spread.mean:.1%} ± {spread.std:.1%}"
