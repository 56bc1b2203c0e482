"""One function per entry point: (config, tracker) -> StageResult, and ``run`` that tracks it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Collection
from typing import Any

from scenetrack.cache import chosen_bound
from scenetrack.config import (
    ActivationsConfig,
    DataConfig,
    EntryPointConfig,
    ExportConfig,
    StageConfig,
    TrainingConfig,
    TuneConfig,
    format_value,
)
from scenetrack.errors import ConfigError
from scenetrack.networks.checkpoints import Checkpoint
from scenetrack.networks.keras_import import import_keras
from scenetrack.records import Tag, Tracker
from scenetrack.workflow.result import StageResult

TASKS = {
    "train_mlp": "1",
    "activations": "2",
    "layer_svm": "4",
    "patch_bow": "5",
    "handcrafted": "handcrafted",
    "main": "all",
}

_WITHOUT_NETWORK = ("handcrafted",)


def run(config: StageConfig, *, given: Collection[str] = ()) -> StageResult:
    """Run the stage of ``config`` in an MLflow run of its own and print its summary.

    Args:
        config: the settings.
        given: names of settings that were chosen even where they equal the default, so that a
            resumed training can refuse those that are not its own.

    Raises:
        ScenetrackError: the input cannot be used, or the work failed; the run is marked failed.
    """
    _check_cache(config)
    if isinstance(config, TuneConfig):
        module = importlib.import_module("scenetrack.stages.tune")
        return _printed(module.tune(config, stage_function))
    from scenetrack import tracking

    if isinstance(config, ActivationsConfig) and config.layer == "list":
        import_keras()
        from scenetrack.workflow.network import layer_table, take

        return _printed(StageResult("", layer_table(take(config.model, config.experiment))))
    resumed = getattr(config, "resume", "")
    if isinstance(config, TrainingConfig) and resumed:
        tracking.resolve_run(resumed)
        config = resumed_config(config, given)
    stage = stage_function(config.stage)
    repeats = getattr(config, "repeats", 1)
    tags = {"stage": config.stage, "task": TASKS[config.stage]}
    with tracking.open_run(config, name=run_name(config), tags=tags) as tracker:
        if resumed:
            tracker.log(Tag("resumed_from", resumed))
        if repeats > 1:
            result = _repeated(stage, config, repeats, tracker)
        else:
            result = stage(config, tracker)
    if resumed:
        tracking.end_resumed(resumed, tracker.run_id)
    if isinstance(config, DataConfig) and config.data == "demo":
        note = "demo data: drawn scenes, so these figures are no results"
        result = dataclasses.replace(result, summary=f"{result.summary}\n{note}")
    if isinstance(config, DataConfig) and repeats == 1:
        use = f"run {result.run_id}; to ship it: scenetrack bundle {result.run_id} -o scene.onnx"
        result = dataclasses.replace(result, summary=f"{result.summary}\n{use}")
    return _printed(result)


def deliver(config: EntryPointConfig) -> None:
    """Run one of ``config.DELIVERY``, which writes files and opens no MLflow run of its own.

    Raises:
        ScenetrackError: the input cannot be used, or the work failed.
    """
    _check_cache(config)
    if isinstance(config, ExportConfig):
        import_keras()
    module = importlib.import_module(f"scenetrack.stages.{config.stage}")
    getattr(module, config.stage)(config)


def _check_cache(config: EntryPointConfig) -> None:
    """Raise InputError now, not after minutes of work, where images could not be kept."""
    if hasattr(config, "data"):
        chosen_bound()


def _repeated(
    stage: Callable[[Any, Tracker], StageResult], config: Any, repeats: int, tracker: Tracker
) -> StageResult:
    # What it imports takes its time, and a wrong setting is refused before.
    from scenetrack.workflow.repeats import repeated

    return repeated(stage, config, repeats, tracker)


def _printed(result: StageResult) -> StageResult:
    print(result.summary)
    return result


def stage_function(stage: str) -> Callable[[Any, Tracker], StageResult]:
    """The function of an entry point, imported only now: TensorFlow takes seconds."""
    if stage not in _WITHOUT_NETWORK:
        import_keras()
    module = importlib.import_module(f"scenetrack.stages.{stage}")
    function: Callable[[Any, Tracker], StageResult] = getattr(module, stage)
    return function


def run_name(config: StageConfig) -> str:
    """The stage and its main settings, as the MLflow UI lists it."""
    settings = config.as_params()
    keys = ("data", "preset", "layer", "hidden", "encoder")
    shown = [settings[key] for key in keys if settings.get(key, "none") not in ("", "none")]
    return " ".join([config.stage, *shown])


def resumed_config(config: TrainingConfig, given: Collection[str] = ()) -> TrainingConfig:
    """The settings of the run that ``config.resume`` names.

    What ``config`` leaves at its default counts as not chosen, unless it is among ``given``.

    Raises:
        ConfigError: ``config`` sets something else than that run did.
        ModelError: the run has no checkpoint here, or is of another stage.
    """
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
