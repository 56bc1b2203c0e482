"""The end of a study: its pictures and figures, and the best settings on all of train, tested."""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from scenetrack import tracking
from scenetrack.config import BundleConfig, EvaluatedConfig, TuneConfig
from scenetrack.config.texts import flag_name
from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.comparison import aligned
from scenetrack.records import Figure, Metric, Param, Tag, Text, metrics
from scenetrack.stages.result import MLP, StageResult
from scenetrack.stages.trial import METHOD, StageFunction
from scenetrack.storage import cache_dir, lock
from scenetrack.tuning.settings import trial_config
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.trials import RUN, saved_seconds
from scenetrack.tuning.worker import FAILURE, SETTINGS

logger = logging.getLogger(__name__)

# Key of a study's user attributes.
REFIT = "refit"
_SHOWN, _SHOWN_OF_FRONT = 5, 20
# Characters of the settings in a table's row.
_DRAWN_SHOWN = 80
_HEADS = {"accuracy": "accuracy", "parameters": "parameters", "latency": "ms an image"}


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
        text = [summary(study, config, space, best)]
        figures: dict[str, float] = {}
        if config.refit:
            refitted, figures = _refit(study, config, space, best, tracker, stage_function)
            text.append(refitted)
        tracking.finish_run(run_id)
    return StageResult(run_id, "\n".join([*text, f"run {run_id}"]), metrics=figures)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The most accurate complete trial, of equal ones the first that no other beats in the rest.

    Raises:
        ScenetrackError: none is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise ScenetrackError(
            f"study {study.study_name!r} has no complete trial: every one failed or was stopped; "
            "see their runs, and choose other ranges with --space or another --study"
        )
    return _best_first(study)[0]


def summary(study: optuna.Study, config: TuneConfig, space: SearchSpace, best: FrozenTrial) -> str:
    """The best trials as a table, how the others ended, and the best one's flags."""
    several = len(config.objectives) > 1
    rows = [
        [
            str(one.number),
            *map(_value_text, config.objectives, one.values),
            textwrap.shorten(_drawn_text(one), _DRAWN_SHOWN, placeholder=" ..."),
        ]
        for one in _best_first(study)[: _SHOWN_OF_FRONT if several else _SHOWN]
    ]
    heads = ["trial", *(_HEADS[name] for name in config.objectives), "settings"]
    lines = aligned([heads, *rows], left=(0, len(heads) - 1))
    if several:
        lines.insert(0, "inside train, the trials that no other beats in everything:")
    counts = _counts(study)
    lines.append(
        f"{counts['complete']} complete, {counts['pruned']} stopped early (saving "
        f"{saved_seconds(study.get_trials(deepcopy=False)):.0f} s), {counts['failed']} failed"
        + f", {counts['impossible']} with impossible settings"
        * bool(counts["impossible"])
    )
    settings: dict[str, str] = json.loads(best.user_attrs[SETTINGS])
    drawn = [
        f"{flag_name(name)} {shlex.quote(value)}"
        for name, value in settings.items()
        if name not in space.fixed
    ]
    return "\n".join([*lines, f"trial {best.number}: {' '.join(drawn)}"])


def refit_config(
    config: TuneConfig, space: SearchSpace, trial: FrozenTrial, figures: Mapping[str, float]
) -> EvaluatedConfig:
    """The best settings for all of train.

    Nothing is held out, but by ``layer_svm``, whose SVM is chosen on images that the network has
    not seen. Early stopping needs them too, and temperatures are learnt from them: the epochs and
    temperatures that the trial found stay instead. Of several kernels the one that was best is
    kept.

    Args:
        config: of the study.
        space: of the study.
        trial: the best one.
        figures: metrics of its run.
    """
    settings: dict[str, str] = json.loads(trial.user_attrs[SETTINGS])
    if config.target == "layer_svm":
        settings["validation"] = "0.1"
    elif "validation" in settings:
        settings["validation"] = "0"
        settings["temperatures"] = _temperatures(figures)
    if settings.get("patience", "0") != "0":
        settings |= {"patience": "0", "epochs": f"{figures['epochs']:.0f}"}
    words = str(trial.user_attrs.get(METHOD, "")).split()
    if len(words) > 1 and words[-1] == "svm" and words[-2] != "layer":
        settings["kernels"] = words[-2]
    return trial_config(config, space, settings, test=True)


def _temperatures(figures: Mapping[str, float]) -> str:
    """Those of a trial's methods, as its target takes them."""
    found = {
        name.removeprefix("temperature").removeprefix("/") or MLP: value
        for name, value in figures.items()
        if name == "temperature" or name.startswith("temperature/")
    }
    return "; ".join(f"{method}={value:.6g}" for method, value in found.items())


def _refit(
    study: optuna.Study,
    config: TuneConfig,
    space: SearchSpace,
    best: FrozenTrial,
    tracker: tracking.MlflowTracker,
    stage_function: StageFunction,
) -> tuple[str, dict[str, float]]:
    """Fit the best settings on all of train, test and register them, unless that was done."""
    done: dict[str, Any] = study.user_attrs.get(REFIT, {})
    if done.get("trial") == best.number and tracking.is_known(done.get("run", "")):
        logger.info("trial %d was refitted before: run %s", best.number, done["run"])
    else:
        done = _fit_best(config, space, best, tracker, stage_function)
        study.set_user_attr(REFIT, done)
    text = _refit_text(best, done["run"], done["figures"])
    if config.register:
        if config.register not in done["registered"]:
            version = _register(config, done["run"], done["method"])
            done = {**done, "registered": {**done["registered"], config.register: version}}
            study.set_user_attr(REFIT, done)
        version = done["registered"][config.register]
        text += f"\nregistered as models:/{config.register}@champion, version {version}"
    return text, done["figures"]


def _fit_best(
    config: TuneConfig,
    space: SearchSpace,
    best: FrozenTrial,
    tracker: tracking.MlflowTracker,
    stage_function: StageFunction,
) -> dict[str, Any]:
    """What the study keeps of the refit: run, method, test figures, and names in the registry."""
    target = refit_config(config, space, best, tracking.resolve_run(best.user_attrs[RUN]).metrics)
    logger.info("fitting the settings of trial %d on all of train", best.number)
    with tracker.child(f"best: trial {best.number}", {"stage": config.target}) as child:
        child.log(*(Param(name, value) for name, value in target.as_params().items()))
        result = stage_function(target.stage)(target, child)
    method = str(best.user_attrs.get(METHOD, "")) or next(iter(result.methods))
    figures = {k: float(v) for k, v in result.methods[method].items() if k.startswith("test/")}
    tracker.log(Tag("best_run", child.run_id), Tag("best_method", method), *metrics(figures))
    return {
        "trial": best.number,
        "run": child.run_id,
        "method": method,
        "figures": figures,
        "registered": {},
    }


def _refit_text(best: FrozenTrial, run: str, figures: Mapping[str, float]) -> str:
    return (
        f"trial {best.number} on all of train: {figures['test/accuracy']:.1%} of the test images "
        f"right ({figures['test/accuracy_low']:.1%} to {figures['test/accuracy_high']:.1%})\n"
        f"to ship it: scenetrack bundle {run} -o scene.onnx"
    )


def _register(config: TuneConfig, run: str, method: str) -> str:
    """Ship the refitted method as one verified file, as the champion of a registered model.

    Returns:
        Its version.
    """
    from scenetrack.stages.bundle import bundle
    from scenetrack.stages.finished import find_method

    several = config.target != "train_mlp"
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "scene.onnx")
        bundle(BundleConfig(run=run, method=method if several else "", output=output))
    found = find_method(run, method if several else "")
    return tracking.register_champion(found.run.id if found.run else run, config.register)


def _best_first(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials, of several objectives those that no other beats in all: by accuracy."""
    if len(study.directions) > 1:
        found = study.best_trials
    else:
        found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(found, key=lambda one: (-one.values[0], one.number))


def _value_text(objective: str, value: float) -> str:
    texts = {"accuracy": f"{value:.1%}", "parameters": f"{value:,.0f}"}
    return texts.get(objective, f"{value:.3g}")


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
    counts = dict.fromkeys(("complete", "pruned", "failed", "impossible"), 0)
    kinds = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    for one in study.get_trials(deepcopy=False):
        if one.state == TrialState.PRUNED and FAILURE in one.user_attrs:
            counts["impossible"] += 1
        elif one.state in kinds:
            counts[kinds[one.state]] += 1
    return counts


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
