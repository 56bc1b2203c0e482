"""Run one trial of a study: its target without the test images, in a child run."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna

from scenetrack import tracking
from scenetrack.config import EvaluatedConfig, TuneConfig
from scenetrack.errors import DataError, InputError
from scenetrack.networks.checkpoints import Checkpoint
from scenetrack.records import Metric, Param, Tag, Tracker, metrics
from scenetrack.stages.tune.context import BEGUN_WITH, IMAGES, StudyContext
from scenetrack.system.interrupts import defer_signals
from scenetrack.tuning.trial_config import trial_config
from scenetrack.tuning.trial_state import RUN
from scenetrack.tuning.trial_tracker import TrialTracker
from scenetrack.tuning.worker import RunTrial
from scenetrack.workflow.latency import latency_ms
from scenetrack.workflow.result import StageResult

# Keys of a trial's user attributes: the method that was its best, and that method's SVM kernel.
METHOD, KERNEL = "method", "kernel"


def trial_runner(context: StudyContext) -> RunTrial:
    """Return the function that runs a trial as a child of the study's run.

    The stage says what it does the first time, and after that only what goes wrong.
    """
    config, parent = context.config, tracking.join_run(context.run_id)
    spoken = False

    def run(trial: optuna.Trial, settings: Mapping[str, str]) -> tuple[float, ...]:
        nonlocal spoken
        target = trial_config(config, context.space, settings)
        stopped: optuna.TrialPruned | None = None
        with _quiet(spoken), parent.child(f"trial {trial.number}", {"stage": config.target}) as own:
            spoken = True
            with defer_signals():
                trial.set_user_attr(RUN, own.run_id)
            try:
                return _run_trial(context, target, trial, own)
            except optuna.TrialPruned as error:
                stopped = error
            finally:
                Checkpoint.of_run(own.run_id).delete()
                _forget_networks()
        own.log(Tag("status", "pruned"))
        raise stopped

    return run


def _run_trial(
    context: StudyContext, target: EvaluatedConfig, trial: optuna.Trial, child: Tracker
) -> tuple[float, ...]:
    config = context.config
    child.log(
        Tag("trial", str(trial.number)),
        *(Param(name, value) for name, value in target.as_params().items()),
    )
    prunes = config.pruner != "none" and len(config.objectives) == 1
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        parts = Path(name) if "latency" in config.objectives else None
        tracker = TrialTracker(
            child, trial if prunes else None, getattr(target, "epochs", 0), parts
        )
        try:
            result = context.stage_function(target.stage)(target, tracker)
        finally:
            tracker.flush()
        _check_images(context, tracker.tags.get("dataset_digest", ""))
        seconds = time.perf_counter() - started
        values = _values(config, target, result, tracker)
    with defer_signals():
        method = tracker.tags.get("best_method", "")
        trial.set_user_attr(METHOD, method)
        trial.set_user_attr(KERNEL, tracker.kernels.get(method, ""))
    child.log(
        *metrics({f"objective/{name}": value for name, value in values.items()}),
        Metric("time/trial_s", seconds),
    )
    return tuple(values[name] for name in config.objectives)


def _check_images(context: StudyContext, digest: str) -> None:
    """Raise DataError where a trial used other images than the study began with."""
    if digest and digest != context.study.user_attrs[BEGUN_WITH][IMAGES]:
        raise DataError(
            f"the images that the study began with are required, but {context.config.data} was "
            "changed: put them back, or begin another study with --study"
        )


def _values(
    config: TuneConfig, target: EvaluatedConfig, result: StageResult, tracker: TrialTracker
) -> dict[str, float]:
    """Return the objectives of ``config`` by name."""
    accuracy = result.metrics.get("val/accuracy", result.metrics.get("cv/accuracy"))
    if accuracy is None:
        raise InputError("a trial needs images to be judged by: set validation above 0")
    values = {"accuracy": float(accuracy)}
    if "parameters" in config.objectives:
        if "parameters" not in tracker.metrics:
            raise InputError(
                "the objective parameters needs a network that each trial trains, but the target "
                "takes one that is there: leave model out, or the objective"
            )
        values["parameters"] = tracker.metrics["parameters"]
    if tracker.parts is not None:
        method = tracker.tags.get("best_method", "")
        values["latency"] = latency_ms(tracker.parts, method, getattr(target, "aggregation", ""))
    return values


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Silence what the package says of work that goes well, unless all of it is asked for."""
    package = logging.getLogger("scenetrack")
    level = package.level
    if quiet and level == logging.INFO:
        package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(level)


def _forget_networks() -> None:
    """Let go of what Keras keeps of the networks of this trial, which add up in a study."""
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
