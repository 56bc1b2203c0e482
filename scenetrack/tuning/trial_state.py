"""Which trials count, whose they are, and what becomes of those whose process died."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from scenetrack.system.process_identity import process_identity

logger = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Keys of a trial's user attributes.
OWNER, RUN = "owner", "run"
RETRY_OF, SURPLUS, SAVED_S = "retry_of", "surplus", "saved_s"
FAILURE = "failure"
# A process says who it is as soon as its trial begins; one that has not by then has died.
_NAMELESS_S = 60


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: complete, or stopped by the pruner."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def running(study: Study) -> list[FrozenTrial]:
    """The trials in work, as far as anyone knows."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def owner() -> dict[str, str]:
    """What a trial says of the process that works on it: host, pid, and its identity."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": str(pid), "process": process_identity(pid) or ""}


def host_of(trial: FrozenTrial) -> str:
    """The machine that works on the trial; this one where the trial does not say."""
    return str(trial.user_attrs.get(OWNER, {}).get("host", socket.gethostname()))


def is_surplus(study: Study, number: int, wanted: int) -> bool:
    """Whether ``wanted`` trials of the study were begun before this one.

    Two processes may each begin what they take for the last trial. Numbers are given by the storage
    in one order, so that all processes come to the same verdict without talking to each other.
    """
    earlier = study.get_trials(deepcopy=False)[:number]
    return sum(one.state != TrialState.FAIL for one in earlier) >= wanted


def rank(study: Study, number: int) -> int:
    """How many trials that are no retries were begun before this one."""
    earlier = study.get_trials(deepcopy=False)[:number]
    return sum(RETRY_OF not in one.user_attrs and SURPLUS not in one.user_attrs for one in earlier)


def end_stale(study: Study, lost: Callable[[Study, FrozenTrial], None]) -> None:
    """Fail the running trials whose process has died.

    On this machine that is seen at once, elsewhere by the signs of life that no longer come.

    Args:
        study: of the trials.
        lost: told of each trial that this call has failed; it has the trial tried again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since 2021
        optuna.storages.fail_stale_trials(study)
    for trial in running(study):
        if not _is_dead(trial):
            continue
        try:
            ours: bool = study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            continue  # another process was first
        if ours:
            logger.warning("trial %d was left by a process that died", trial.number)
            lost(study, trial)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Have the settings of a failed trial tried again, unless it was such a retry itself.

    A trial that ended otherwise, before its process was stopped, needs none.
    """
    if study.get_trials(deepcopy=False)[trial.number].state != TrialState.FAIL:
        return
    if RETRY_OF in trial.user_attrs:
        logger.warning("trial %d failed for the second time: it is given up", trial.number)
        return
    study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


def is_elsewhere(trial: FrozenTrial) -> bool:
    """Whether the trial is in work where its process cannot be seen from here.

    That is on another machine, or in a container with process numbers of its own.
    """
    said = trial.user_attrs.get(OWNER)
    if said is None:
        return False
    own = owner()
    return bool(said["host"] != own["host"] or _numbers(said) != _numbers(own))


def counts(study: Study) -> dict[str, int]:
    """How the trials ended: ``complete``, ``pruned``, ``failed``, ``impossible``.

    Those that there were too many of, or that were tried again, are not among them.
    """
    known = study.get_trials(deepcopy=False)
    again = {one.user_attrs.get(RETRY_OF) for one in known}
    found = dict.fromkeys(("complete", "pruned", "failed", "impossible"), 0)
    for one in known:
        if one.state == TrialState.COMPLETE:
            found["complete"] += 1
        elif one.state == TrialState.PRUNED:
            found["impossible" if FAILURE in one.user_attrs else "pruned"] += 1
        elif one.state == TrialState.FAIL and SURPLUS not in one.user_attrs:
            found["failed"] += one.number not in again
    return found


def saved_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Seconds that pruning saved in all."""
    return float(sum(one.user_attrs.get(SAVED_S, 0.0) for one in trials))


def _is_dead(trial: FrozenTrial) -> bool:
    said = trial.user_attrs.get(OWNER)
    if said is None:
        begun = trial.datetime_start
        return begun is not None and time.time() - begun.timestamp() > _NAMELESS_S
    if is_elsewhere(trial) or not said["process"]:
        return False
    return bool(process_identity(int(said["pid"])) != said["process"])


def _numbers(said: Mapping[str, str]) -> str:
    """The space of process numbers that a process is in: containers have their own."""
    return said["process"].rpartition("]")[0]
