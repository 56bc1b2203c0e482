"""Run an entry point, in an MLflow run of its own if its config asks for one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from scenetrack.cache import chosen_bound
from scenetrack.config import ENTRY_POINTS, EntryPointConfig, StageConfig, TrainingConfig
from scenetrack.config.base import format_value
from scenetrack.errors import ConfigError, StoreError, WriteError
from scenetrack.records import Tag, Tracker
from scenetrack.system.terminal import say
from scenetrack.workflow.result import StageResult


def run(config: EntryPointConfig, *, given: Collection[str] = ()) -> StageResult | None:
    """Run the entry point of ``config`` and print its summary.

    Args:
        config: the settings.
        given: names of settings that were chosen even where they equal the default, so that a
            resumed training can refuse those that are not its own.

    Returns:
        The result; None for an entry point that only writes files.

    Raises:
        ScenetrackError: the input cannot be used, or the work failed; its run is marked failed.
    """
    chosen_bound()  # a wrong size of the cache is refused now, not after minutes of work
    if config.opens_run:
        result: StageResult | None = _in_run(config, given)
    else:
        result = stage_function(config.stage)(config)
    if result is not None:
        say(result.summary)
    return result


def stage_function(stage: str) -> Callable[..., Any]:
    """Import and return the function of an entry point."""
    return ENTRY_POINTS[stage].function()


def _in_run(config: Any, given: Collection[str]) -> StageResult:
    from scenetrack import tracking

    resumed = config.resumed_run
    if resumed:
        tracking.resolve_run(resumed)
        config = resumed_config(config, given)
    stage = _saying_how_to_go_on(stage_function(config.stage))
    tags = {"stage": config.stage, "task": ENTRY_POINTS[config.stage].task}
    with tracking.open_run(config, name=run_name(config), tags=tags) as tracker:
        if resumed:
            tracker.log(Tag("resumed_from", resumed))
        result = _of_seeds(stage, config, tracker) if config.seeds > 1 else stage(config, tracker)
    if resumed:
        tracking.end_resumed(resumed, tracker.run_id)
    return dataclasses.replace(result, summary="\n".join([result.summary, *_notes(config, result)]))


def _saying_how_to_go_on(stage: Callable[[Any, Tracker], StageResult]) -> Callable[..., Any]:
    """Return the stage, which adds to errors of stores and disks how a training goes on."""

    def run_stage(config: Any, tracker: Tracker) -> StageResult:
        try:
            return stage(config, tracker)
        except (StoreError, WriteError) as error:
            from scenetrack.networks.checkpoints import Checkpoint

            if isinstance(config, TrainingConfig) and Checkpoint.of_run(tracker.run_id).begun:
                how = f"scenetrack {config.stage} --resume {tracker.run_id}"
                raise StoreError(f"{error}; to go on from the last epoch: {how}") from error
            raise

    return run_stage


def _of_seeds(
    stage: Callable[[Any, Tracker], StageResult], config: Any, tracker: Tracker
) -> StageResult:
    # Its imports take seconds, and a wrong setting is refused before.
    from scenetrack.workflow.repeats import repeated

    return repeated(stage, config, config.seeds, tracker)


def _notes(config: StageConfig, result: StageResult) -> list[str]:
    """Return what the summary says besides the stage's own lines."""
    notes = []
    if config.data_name == "demo":
        notes.append("demo data: drawn scenes, so these figures are no results")
    if config.data_name and config.seeds == 1:
        run_id = result.run_id
        notes.append(f"run {run_id}; to ship it: scenetrack bundle {run_id} -o scene.onnx")
    return notes


def run_name(config: StageConfig) -> str:
    """Return the name of the run: the stage and its main settings."""
    settings = config.as_params()
    keys = ("data", "preset", "layer", "hidden", "encoder")
    shown = [settings[key] for key in keys if settings.get(key, "none") not in ("", "none")]
    return " ".join([config.stage, *shown])


def resumed_config(config: TrainingConfig, given: Collection[str] = ()) -> TrainingConfig:
    """Return the settings of the run that ``config.resume`` names.

    What ``config`` leaves at its default counts as not chosen, unless it is among ``given``.

    Raises:
        ConfigError: ``config`` sets something else than that run did.
        ModelError: the run has no checkpoint here, or is of another stage.
    """
    from scenetrack.networks.checkpoints import Checkpoint

    checkpoint = Checkpoint.of_run(config.resume)
    saved = checkpoint.config(type(config))
    checkpoint.load()  # a damaged one is refused before a run is opened
    for item in dataclasses.fields(config):
        value, kept = getattr(config, item.name), getattr(saved, item.name)
        chosen = item.name in given or value != item.default
        if item.name not in ("resume", "preset") and chosen and value != kept:
            raise ConfigError(
                f"a resumed training keeps its settings: {item.name} is {format_value(kept)} in "
                f"run {config.resume}. Received: {format_value(value)}; leave it out"
            )
    return dataclasses.replace(saved, resume=config.resume)
