"""The end of a study: its pictures and figures, and the best settings on all of train, tested."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from scenetrack import tracking
from scenetrack.config import BundleConfig, EvaluatedConfig, TuneConfig
from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.comparison import aligned
from scenetrack.records import Figure, Metric, Param, Tag, Text, Tracker, metrics
from scenetrack.stages.result import StageResult
from scenetrack.storage import cache_dir, lock
from scenetrack.tuning.settings import trial_config
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.trials import saved_seconds
from scenetrack.tuning.worker import SETTINGS, values_text

logger = logging.getLogger(__name__)

# Keys of a study's and a trial's user attributes.
REFIT, METHOD = "refit", "method"
_SHOWN = 5

# Gives the function of an entry point by its name.
StageFunction: TypeAlias = Callable[[str], Callable[[Any, Tracker], StageResult]]


def conclude(
    study: optuna.Study,
    config: TuneConfig,
    space: SearchSpace,
    run_id: str,
    stage_function: StageFunction,
) -> StageResult:
    """Log what the study found, refit its best settings once, and end its run.

    Processes that come here at once wait for each other, and the first one does the work.

    Raises:
        ScenetrackError: no trial is complete, or the refit failed.
    """
    with lock(cache_dir("studies") / run_id):
        best = best_trial(study)
        tracker = tracking.join_run(run_id)
        tracker.log(*_records(study, config, best), *_pictures(study, config, best))
        text = [summary(study, config, best)]
        figures: dict[str, float] = {}
        if config.refit:
            refitted, figures = _refit(study, config, space, best, tracker, stage_function)
            text.append(refitted)
        tracking.finish_run(run_id)
    return StageResult(run_id, "\n".join([*text, f"run {run_id}"]), metrics=figures)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The most accurate complete trial, of equal ones the first.

    Raises:
        ScenetrackError: none is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise ScenetrackError(
            f"study {study.study_name!r} has no complete trial: every one failed or was stopped; "
            "see their runs, and choose other ranges with --space or another --study"
        )
    return max(complete, key=lambda one: (one.values[0], -one.number))


def summary(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> str:
    """The best trials as a table, and how the others ended."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(complete, key=lambda one: (-one.values[0], one.number))[:_SHOWN]
    rows = [[str(one.number), values_text(one), _drawn_text(one)] for one in ordered]
    counts = _counts(study)
    lines = [line.rstrip() for line in aligned([["trial", "inside train", "settings"], *rows])]
    lines.append(
        f"{counts['complete']} complete, {counts['pruned']} stopped early (saving "
        f"{saved_seconds(study.get_trials(deepcopy=False)):.0f} s), {counts['failed']} failed"
    )
    return "\n".join(lines)


def refit_config(
    config: TuneConfig, space: SearchSpace, trial: FrozenTrial, epochs: int
) -> EvaluatedConfig:
    """The best settings for all of train.

    Nothing is held out, but by ``layer_svm``, whose SVM is chosen on images that the network has
    not seen. Early stopping needs them too: the epochs that it chose stay instead. Of several
    kernels the one that was best is kept.

    Args:
        config: of the study.
        space: of the study.
        trial: the best one.
        epochs: that it trained.
    """
    settings: dict[str, str] = json.loads(trial.user_attrs[SETTINGS])
    if config.target == "layer_svm":
        settings["validation"] = "0.1"
    elif "validation" in settings:
        settings["validation"] = "0"
    if settings.get("patience", "0") != "0":
        settings |= {"patience": "0", "epochs": str(epochs)}
    words = str(trial.user_attrs.get(METHOD, "")).split()
    if len(words) > 1 and words[-1] == "svm" and words[-2] != "layer":
        settings["kernels"] = words[-2]
    return trial_config(config, space, settings, test=True)


def _refit(
    study: optuna.Study,
    config: TuneConfig,
    space: SearchSpace,
    best: FrozenTrial,
    tracker: tracking.MlflowTracker,
    stage_function: StageFunction,
) -> tuple[str, dict[str, float]]:
    """Fit the best settings on all of train and test them, unless that was done before."""
    done = study.user_attrs.get(REFIT, {})
    if done.get("trial") == best.number and tracking.is_known(done.get("run", "")):
        logger.info("trial %d was refitted before: run %s", best.number, done["run"])
        return _refit_text(best, done["run"], done["figures"]), done["figures"]
    epochs = int(tracking.resolve_run(best.user_attrs["run"]).metrics.get("epochs", 0))
    target = refit_config(config, space, best, epochs)
    logger.info("fitting the settings of trial %d on all of train", best.number)
    with tracker.child(f"best: trial {best.number}", {"stage": config.target}) as child:
        child.log(*(Param(name, value) for name, value in target.as_params().items()))
        result = stage_function(target.stage)(target, child)
    method = str(best.user_attrs.get(METHOD, "")) or next(iter(result.methods))
    tested = result.methods[method]
    figures = {k: float(v) for k, v in tested.items() if k.startswith("test/")}
    tracker.log(Tag("best_run", child.run_id), Tag("best_method", method), *metrics(figures))
    done = {"trial": best.number, "run": child.run_id, "figures": figures, "method": method}
    study.set_user_attr(REFIT, done)
    if config.register:
        _register(config, child.run_id, method)
    return _refit_text(best, child.run_id, figures), figures


def _refit_text(best: FrozenTrial, run: str, figures: Mapping[str, float]) -> str:
    return (
        f"trial {best.number} on all of train: {figures['test/accuracy']:.1%} of the test images "
        f"right ({figures['test/accuracy_low']:.1%} to {figures['test/accuracy_high']:.1%})\n"
        f"to ship it: scenetrack bundle {run} -o scene.onnx"
    )


def _register(config: TuneConfig, run: str, method: str) -> None:
    """Ship the refitted method as one verified file, as the champion of a registered model."""
    from scenetrack.stages.bundle import bundle
    from scenetrack.stages.finished import find_method

    several = config.target != "train_mlp"
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "scene.onnx")
        bundle(BundleConfig(run=run, method=method if several else "", output=output))
    found = find_method(run, method if several else "")
    version = tracking.register_champion(found.run.id if found.run else run, config.register)
    print(f"registered as models:/{config.register}@champion, version {version}")


def _drawn_text(trial: FrozenTrial) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in trial.params.items())


def _records(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> list[Metric | Tag]:
    names = [f"objective/{name}" for name in config.objectives]
    figures = dict(zip(names, best.values, strict=True)) | {"val/accuracy": best.values[0]}
    figures |= {f"trials/{name}": float(count) for name, count in _counts(study).items()}
    figures["time/saved_s"] = saved_seconds(study.get_trials(deepcopy=False))
    return [
        *(Metric(name, value) for name, value in figures.items()),
        Tag("best_trial", str(best.number)),
        *(Tag(f"best.{name}", _text(value)) for name, value in best.params.items()),
    ]


def _pictures(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> list[Figure | Text]:
    from scenetrack.tuning.page import study_page
    from scenetrack.tuning.pictures import study_figures

    return [
        *study_figures(study, config.objectives),
        study_page(study, config.objectives, best),
    ]


def _counts(study: optuna.Study) -> dict[str, int]:
    states = [one.state for one in study.get_trials(deepcopy=False)]
    kinds = {
        "complete": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    return {name: states.count(state) for name, state in kinds.items()}


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
