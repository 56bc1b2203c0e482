"""The refit of the best trial on all training images: tested once, registered as champion."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from scenetrack import tracking
from scenetrack.config import TARGETS, BundleConfig, EvaluatedConfig, TuneConfig
from scenetrack.config.entry_point import Methods
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.records import Param, Tag, metrics
from scenetrack.stages.tune.context import StudyContext
from scenetrack.stages.tune.run_trial import KERNEL, METHOD
from scenetrack.system.foreign import parsed_json
from scenetrack.system.interrupts import allow_signals, defer_signals
from scenetrack.tuning.space import SearchSpace
from scenetrack.tuning.storage import SETTLE_S, is_journal
from scenetrack.tuning.trial_config import trial_config
from scenetrack.tuning.trial_state import RUN
from scenetrack.tuning.worker import SETTINGS
from scenetrack.workflow.result import MLP

logger = logging.getLogger(__name__)

# Key of a study's user attributes.
REFIT = "refit"


class RefitElsewhere(ScenetrackError):
    """Another machine refits the best trial now."""


def refit_config(
    config: TuneConfig, space: SearchSpace, trial: FrozenTrial, figures: Mapping[str, float]
) -> EvaluatedConfig:
    """Return the best settings for a training on all of train.

    Nothing is held out, but by ``layer_svm``, whose SVM is chosen on images that the network has
    not seen. Early stopping needs them too, and temperatures are learnt from them: the refit trains
    as many epochs as were best in the trial (a cosine schedule is that much shorter), and takes the
    trial's temperatures. Of several kernels the one that was best is kept.

    Args:
        config: of the study.
        space: of the study.
        trial: the best one.
        figures: metrics of its run.

    Raises:
        ModelError: the run has lost its figures.
    """
    settings: dict[str, str] = parsed_json(trial.user_attrs[SETTINGS])
    keeps_validation = TARGETS[config.target].config.chooses_on_held_out
    if keeps_validation:
        settings["validation"] = "0.1"
    elif "validation" in settings:
        settings["validation"] = "0"
        settings["temperatures"] = _temperatures(figures)
    if settings.get("patience", "0") != "0":
        if "best_epoch" not in figures:
            raise ModelError(
                f"the run of trial {trial.number} must hold the metric best_epoch, but it does "
                "not: start the study anew with another --study"
            )
        settings |= {"patience": "0", "epochs": f"{figures['best_epoch']:.0f}"}
    if not keeps_validation and trial.user_attrs.get(KERNEL):
        settings["kernels"] = trial.user_attrs[KERNEL]
    return trial_config(config, space, settings, test=True)


def _temperatures(figures: Mapping[str, float]) -> str:
    """Return the temperatures of a trial's methods, as its target takes them."""
    found = {
        name.removeprefix("temperature").removeprefix("/") or MLP: value
        for name, value in figures.items()
        if name == "temperature" or name.startswith("temperature/")
    }
    return "; ".join(f"{method}={value:.6g}" for method, value in found.items())


def refit(
    context: StudyContext, best: FrozenTrial, tracker: tracking.MlflowTracker
) -> tuple[str, dict[str, float]]:
    """Fit the best settings on all of train, test and register them, unless that was done.

    Returns:
        What to say of it, and the test figures.

    Raises:
        RefitElsewhere: another machine does so now.
        ScenetrackError: it failed.
    """
    study, config = context.study, context.config
    done: dict[str, Any] = study.user_attrs.get(REFIT, {})
    if done.get("trial") == best.number and tracking.is_known(done.get("run", "")):
        logger.info("trial %d was refitted before: run %s", best.number, done["run"])
    else:
        others = _in_work(tracker.run_id, best)
        if others:
            raise _elsewhere(best, others[0])
        with defer_signals():
            done = _fit_best(context, best, tracker)
            study.set_user_attr(REFIT, done)
    text = _refit_text(best, done["run"], done["figures"])
    if config.register:
        if config.register not in done["registered"]:
            with defer_signals():
                version = _register(config, done["run"], done["method"])
                done = {**done, "registered": {**done["registered"], config.register: version}}
                study.set_user_attr(REFIT, done)
        version = done["registered"][config.register]
        text += f"\nregistered as models:/{config.register}@champion, version {version}"
    return text, done["figures"]


def _fit_best(
    context: StudyContext, best: FrozenTrial, tracker: tracking.MlflowTracker
) -> dict[str, Any]:
    """Return what the study keeps of the refit: run, method, test figures, registry names."""
    config = context.config
    target = refit_config(
        config, context.space, best, tracking.resolve_run(best.user_attrs[RUN]).metrics
    )
    logger.info("fitting the settings of trial %d on all of train", best.number)
    with tracker.child(_run_name(best), {"stage": config.target}) as child:
        if not is_journal(config.storage):
            # Another machine may have begun at the same moment: the first id goes on.
            time.sleep(SETTLE_S)
            first = _in_work(tracker.run_id, best)[0]
            if first.id != child.run_id:
                raise _elsewhere(best, first)
        child.log(*(Param(name, value) for name, value in target.as_params().items()))
        result = context.stage_function(target.stage)(target, child)
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


def _run_name(best: FrozenTrial) -> str:
    return f"best: trial {best.number}"


def _in_work(study_run: str, best: FrozenTrial) -> list[tracking.RunInfo]:
    """Return the runs that refit the trial and have not ended, by id."""
    found = [run for run in tracking.children(study_run) if run.name == _run_name(best)]
    return sorted((run for run in found if run.status == "RUNNING"), key=lambda run: run.id)


def _elsewhere(best: FrozenTrial, run: tracking.RunInfo) -> RefitElsewhere:
    return RefitElsewhere(
        f"trial {best.number} is being refitted on {run.tags.get('host', 'another machine')} by "
        f"run {run.id}: should that have died, delete its run (mlflow runs delete --run-id "
        f"{run.id}) and start the same command again"
    )


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
    from scenetrack.workflow.load_method import find_method

    several = TARGETS[config.target].methods is Methods.SEVERAL
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "scene.onnx")
        with allow_signals():
            bundle(BundleConfig(run=run, method=method if several else "", output=output))
    found = find_method(run, method if several else "")
    return tracking.register_champion(found.run.id if found.run else run, config.register)
