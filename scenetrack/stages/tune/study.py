"""A study: created or continued, its trials run by one or more processes, one refit at the end."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from filelock import BaseFileLock
from optuna.trial import FrozenTrial

from scenetrack import tracking
from scenetrack.config import TARGETS, TrainingConfig, TuneConfig
from scenetrack.config.base import DATA_SETTINGS
from scenetrack.config.parsing import build_config, parsed_pairs
from scenetrack.config.tune import HELD_OUT
from scenetrack.errors import ConfigError, InputError, ScenetrackError
from scenetrack.evaluation.comparison import aligned
from scenetrack.stages.tune.conclusion import conclude
from scenetrack.stages.tune.context import BEGUN_WITH, IMAGES, StageFunction, StudyContext
from scenetrack.stages.tune.run_trial import trial_runner
from scenetrack.stages.tune.study_check import check_study
from scenetrack.stages.tune.workers import become_worker, run_processes
from scenetrack.system.files import cache_dir, lock
from scenetrack.system.interrupts import allow_signals, defer_signals
from scenetrack.system.machine import available_cpus
from scenetrack.tuning.baseline import baseline_values
from scenetrack.tuning.samplers import make_pruner
from scenetrack.tuning.space import SearchSpace, search_space
from scenetrack.tuning.storage import (
    SETTLE_S,
    is_journal,
    one_line_storage_errors,
    open_storage,
    redacted,
)
from scenetrack.tuning.trial_state import RUN, retry
from scenetrack.tuning.worker import Worker
from scenetrack.workflow.dataset import load_data
from scenetrack.workflow.result import StageResult
from scenetrack.workflow.runner import stage_function

logger = logging.getLogger(__name__)

# Keys of a study's user attributes: its MLflow run.
STUDY_RUN = "run"
_ELSEWHERE = (
    "the last trials are in work on another machine, which will conclude the study; should it "
    "fail, start the same command again some minutes later"
)
_DIRECTIONS: Mapping[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize",
    "parameters": "minimize",
    "latency": "minimize",
}


def tune(config: TuneConfig, stage_function: StageFunction = stage_function) -> StageResult:
    """Work on the study of ``config`` until it has its trials, and conclude it.

    Args:
        config: settings of the study.
        stage_function: gives the function that a trial runs by the target's name.

    Raises:
        InputError: the target, its space, the storage or the data cannot be used.
        ScenetrackError: trials fail one after the other, or the store does not answer.
    """
    space = space_of(config)
    if config.show_space:
        return StageResult("", space_text(space))
    with one_line_storage_errors(config.storage):
        return _tune(config, space, stage_function)


def _tune(config: TuneConfig, space: SearchSpace, stage_function: StageFunction) -> StageResult:
    if config.register:
        tracking.check_registry()
    study = open_study(config, space)
    if len(config.objectives) > 1 and config.pruner != "none":
        logger.info("trials of several objectives are all run to their end: nothing is pruned")
    if config.sampler == "grid" and space.grid_size(config.trials + 1) > config.trials:
        logger.warning(
            "the grid has more than %d combinations: only the first ones are tried; raise trials, "
            "or give fewer values with --space",
            config.trials,
        )
    run_id = _study_run(study, config)
    context = StudyContext(study, config, space, run_id, stage_function)
    with tracking.joined_by(_redacted(config), run_id, study.study_name):
        tracking.reconcile_stale_runs(config.experiment)
        tracking.run_again(run_id)
        try:
            with allow_signals(), one_line_storage_errors(config.storage):
                if not _work(context):
                    return StageResult(run_id, _ELSEWHERE)
                result = conclude(context)
        except BaseException as error:
            tracking.stop_run(run_id, error)
            raise
    return result


def space_of(config: TuneConfig) -> SearchSpace:
    """Return the search space of the study, with the settings that are fixed.

    Raises:
        ConfigError: no target, an unknown setting, or a range that cannot be.
    """
    if not config.target:
        raise ConfigError(f"target must be one of: {', '.join(TARGETS)}. Received: none")
    target: type[Any] = TARGETS[config.target].config
    fixed = parsed_pairs(config.fixed)
    for name in (*DATA_SETTINGS, "repeats", "test", "resume"):
        if name in fixed:
            raise ConfigError(f"{name} is not for the target of a study: leave it out of fixed")
    names = {item.name for item in dataclasses.fields(target)}
    if "validation" in names and "validation" not in fixed:
        fixed["validation"] = HELD_OUT
    space = search_space(target, config.space, fixed)
    if "parameters" in config.objectives and not issubclass(target, TrainingConfig):
        raise ConfigError(f"{config.target} has no network whose parameters could be few")
    if "parameters" in config.objectives and fixed.get("model"):
        raise ConfigError(
            "the objective parameters needs a network that each trial trains, but model names one "
            "that is there: leave model out of fixed, or the objective"
        )
    if "validation" in names and fixed["validation"] == "0":
        raise ConfigError("a trial needs images to be judged by: fix validation above 0")
    if config.sampler == "cmaes" and len(config.objectives) > 1:
        raise ConfigError("cmaes has one objective: choose another sampler, or accuracy alone")
    return space


def space_text(space: SearchSpace) -> str:
    """Return the search space as a table."""
    rows = [["dimension", "values", "sets", "only when"], *map(list, space.table())]
    lines = aligned(rows, left=range(4))
    stays = "; ".join(f"{name}={value}" for name, value in space.fixed.items())
    return "\n".join([*lines, f"stays: {stays or 'defaults'}"])


def open_study(config: TuneConfig, space: SearchSpace) -> optuna.Study:
    """Return the study, which is created if it does not exist.

    Raises:
        InputError: the storage cannot be opened, the data cannot be used, or the study was begun
            with other images or settings, or by another program, or holds what scenetrack does not
            write.
    """
    dataset = load_data(config)
    directions = [_DIRECTIONS[name] for name in config.objectives]
    storage = open_storage(config.storage, _lost)
    pruner = config.pruner if len(config.objectives) == 1 else "none"
    with defer_signals():
        study = optuna.create_study(
            study_name=study_name(config),
            storage=storage,
            directions=directions,
            pruner=make_pruner(pruner, _planned_epochs(space)),
            load_if_exists=True,
        )
    check_study(study, directions)
    now = {
        "target": config.target,
        # Not the folder's name, which others have too, and which stays when its images change.
        IMAGES: dataset.digest,
        "skip_bad": str(config.skip_bad),
        "seed": str(config.seed),
        "objectives": ",".join(config.objectives),
        "fixed": json.dumps(dict(sorted(space.fixed.items()))),
        "space": json.dumps(space.table()),
    }
    with _alone(config), defer_signals():
        begun = study.user_attrs.get(BEGUN_WITH)
        if begun is None:
            # In this order: a process that dies in between leaves a study that begins once more.
            if config.sampler != "grid":
                study.enqueue_trial(baseline_values(space), skip_if_exists=True)
            study.set_user_attr(BEGUN_WITH, now)
            return study
        known = dict(begun) if isinstance(begun, Mapping) else {}
        if known and IMAGES not in known:
            # A version without this entry began it.
            known[IMAGES] = dataset.digest
            study.set_user_attr(BEGUN_WITH, known)
    other = [name for name in now if known.get(name) != now[name]]
    if other:
        raise InputError(
            f"study {study.study_name!r} in {redacted(config.storage)} was begun with other "
            f"{' and '.join(other)}: go on with the same, or choose another name with --study"
        )
    return study


def _planned_epochs(space: SearchSpace) -> int:
    """Return the epochs of a trial; 0 where no network is trained."""
    return int(getattr(build_config(space.target, space.fixed, from_mlflow=False), "epochs", 0))


def study_name(config: TuneConfig) -> str:
    """Return the name given, else one made from target and data."""
    return config.study or f"{config.target} {os.path.basename(os.path.normpath(config.data))}"


def _study_run(study: optuna.Study, config: TuneConfig) -> str:
    """Return the MLflow run of the study: one, however many processes ask at once."""
    with _alone(config), defer_signals():
        known = _known_run(study)
        if known:
            return known
        tags = {"stage": "tune", "task": "tune", "study": study.study_name}
        own = tracking.begin_run(_redacted(config), name=study.study_name, tags=tags).run_id
        study.set_user_attr(f"{STUDY_RUN}:{own}", time.time())
        if is_journal(config.storage):
            return own
        # Another machine may have made one at the same moment: all of them take the first name.
        with allow_signals():
            time.sleep(SETTLE_S)
        first = _known_run(study)
        if first != own:
            tracking.fail_run(own, f"the study's run is {first}")
        return first


def _alone(config: TuneConfig) -> BaseFileLock:
    """Hold a lock that one process of this machine has at a time while a study begins."""
    key = "".join(
        c if c.isalnum() else "_" for c in f"{redacted(config.storage)} {study_name(config)}"
    )
    return lock(cache_dir("studies") / key[-150:])


def _runs(study: optuna.Study) -> list[str]:
    prefix = f"{STUDY_RUN}:"
    return [k.removeprefix(prefix) for k in study.user_attrs if k.startswith(prefix)]


def _known_run(study: optuna.Study) -> str:
    return next((run for run in sorted(_runs(study)) if tracking.is_known(run)), "")


def _work(context: StudyContext) -> bool:
    """Run the trials; return False where other machines still have the last ones in work."""
    config = context.config
    if config.workers == 1:
        return _worker(context).work()
    level = logging.getLogger("scenetrack").getEffectiveLevel()
    threads = max(1, available_cpus() // config.workers)
    part = (config, context.run_id, context.stage_function, level)
    run_processes(config.workers, threads, work_in_process, *part)
    # The runs and trials of those that were killed are ended, and what they left is done here.
    tracking.reconcile_stale_runs(config.experiment)
    return _worker(context).work()


def work_in_process(
    config: TuneConfig, run_id: str, stage_function: StageFunction, level: int
) -> None:
    """Run the work of a worker process; its failures are told by its exit code."""
    try:
        become_worker(level)
        space = space_of(config)
        with allow_signals(), one_line_storage_errors(config.storage):
            study = open_study(config, space)
            _worker(StudyContext(study, config, space, run_id, stage_function)).work()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ScenetrackError as error:
        logger.warning("a worker stopped: %s", error)
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        logger.warning("a worker stopped: internal error: %s: %s", type(error).__name__, error)
        logger.debug("the worker's traceback", exc_info=True)
        raise SystemExit(1) from None


def _redacted(config: TuneConfig) -> TuneConfig:
    """Return the settings as a run may show them."""
    return dataclasses.replace(config, storage=redacted(config.storage))


def _lost(study: optuna.Study, trial: FrozenTrial) -> None:
    """Try a trial again whose process died, and end its run."""
    retry(study, trial)
    if RUN in trial.user_attrs:
        tracking.fail_run(trial.user_attrs[RUN], "the process died")


def _worker(context: StudyContext) -> Worker:
    return Worker(context.study, context.config, context.space, trial_runner(context), _lost)
