"""Which trials count, whose they are, and what becomes of those whose process died."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from scenetrack.processes import process_identity

logger = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Keys of a trial's user attributes.
HOST, PID, PROCESS, RUN = "host", "pid", "process", "run"
RETRY_OF, SURPLUS, SAVED_S = "retry_of", "surplus", "saved_s"
# A process says who it is as soon as its trial begins; one that has not by then has died.
_NAMELESS_S = 60


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: complete, or stopped by the pruner."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def running(study: Study) -> list[FrozenTrial]:
    """The trials in work, as far as anyone knows."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def owner() -> dict[str, str]:
    """What a trial says of the process that works on it."""
    pid = os.getpid()
    return {HOST: socket.gethostname(), PID: str(pid), PROCESS: process_identity(pid) or ""}


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


def end_stale(study: Study, failed: Callable[[FrozenTrial], None]) -> None:
    """Fail the running trials whose process on this machine has died, and retry each once.

    Args:
        study: of the trials.
        failed: told of each trial that this call has failed.
    """
    for trial in running(study):
        if not _is_dead(trial):
            continue
        try:
            ours: bool = study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            continue  # another process was first
        if ours:
            logger.warning("trial %d was left by a process that died", trial.number)
            failed(trial)
            retry(study, trial)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Have the settings of a trial tried again, unless it was such a retry itself."""
    if RETRY_OF in trial.user_attrs:
        logger.warning("trial %d failed for the second time: it is given up", trial.number)
        return
    study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


def is_elsewhere(trial: FrozenTrial) -> bool:
    """Whether another machine works on the trial."""
    here = socket.gethostname()
    return str(trial.user_attrs.get(HOST, here)) != here


def saved_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Seconds that pruning saved in all."""
    return float(sum(one.user_attrs.get(SAVED_S, 0.0) for one in trials))


def _is_dead(trial: FrozenTrial) -> bool:
    attributes = trial.user_attrs
    if PROCESS not in attributes:
        begun = trial.datetime_start
        return begun is not None and time.time() - begun.timestamp() > _NAMELESS_S
    if is_elsewhere(trial) or not attributes[PROCESS]:
        return False
    # Containers have process numbers of their own: what is in another space cannot be seen.
    own = process_identity(os.getpid()) or ""
    if own.rpartition("]")[0] != attributes[PROCESS].rpartition("]")[0]:
        return False
    return process_identity(int(attributes[PID])) != str(attributes[PROCESS])
