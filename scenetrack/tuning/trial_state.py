"""States of trials: which count, which process owns them, and stale ones, which are retried."""

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
# A process names itself as owner when its trial begins; without an owner after this time the
# process has died.
_OWNERLESS_S = 60


def finished(study: Study) -> list[FrozenTrial]:
    """Return the finished trials: complete, or stopped by the pruner."""
    return study.get_trials(deepcopy=False, states=FINISHED)


def running(study: Study) -> list[FrozenTrial]:
    """Return the trials whose state is running; their process may have died."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def own_process() -> dict[str, str]:
    """Return host, process id and identity of this process, the owner of the trials it runs."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": str(pid), "process": process_identity(pid) or ""}


def host_of(trial: FrozenTrial) -> str:
    """Return the host name of the trial's owner; this machine's if the trial has no owner yet."""
    return str(trial.user_attrs.get(OWNER, {}).get("host", socket.gethostname()))


def is_surplus(study: Study, number: int, wanted: int) -> bool:
    """Return whether ``wanted`` trials of the study were begun before this one.

    Two processes may each begin what they take for the last trial. The storage numbers trials in
    one order, so all processes come to the same result without communication.
    """
    earlier = study.get_trials(deepcopy=False)[:number]
    return sum(trial.state != TrialState.FAIL for trial in earlier) >= wanted


def draws_before(study: Study, number: int) -> int:
    """Return the number of trials before this one that are neither retries nor surplus."""
    earlier = study.get_trials(deepcopy=False)[:number]
    return sum(
        RETRY_OF not in trial.user_attrs and SURPLUS not in trial.user_attrs for trial in earlier
    )


def fail_stale_trials(study: Study, on_stale_trial: Callable[[Study, FrozenTrial], None]) -> None:
    """Mark running trials as failed if their process has died.

    A dead process on this machine is detected at once, on another machine by missing heartbeats.

    Args:
        study: study of the trials.
        on_stale_trial: called with each trial that this call has failed, to retry it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # since 2021
        optuna.storages.fail_stale_trials(study)
    for trial in running(study):
        if not _process_has_died(trial):
            continue
        try:
            ours: bool = study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            continue  # another process was first
        if ours:
            logger.warning("trial %d was left unfinished by a process that died", trial.number)
            on_stale_trial(study, trial)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Enqueue the settings of a failed trial again, unless it was a retry itself.

    A trial that has another state, because it ended before its process was stopped, is not retried.
    """
    if study.get_trials(deepcopy=False)[trial.number].state != TrialState.FAIL:
        return
    if RETRY_OF in trial.user_attrs:
        logger.warning("trial %d failed for the second time: it is not tried again", trial.number)
        return
    study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


def runs_elsewhere(trial: FrozenTrial) -> bool:
    """Return whether the trial's process cannot be seen from here.

    It runs on another machine, or in a container with its own process numbers.
    """
    owner = trial.user_attrs.get(OWNER)
    if owner is None:
        return False
    own = own_process()
    return bool(
        owner["host"] != own["host"] or _process_namespace(owner) != _process_namespace(own)
    )


def count_outcomes(study: Study) -> dict[str, int]:
    """Return the number of trials by outcome: complete, pruned, failed, impossible.

    Surplus trials, and failed trials that were retried, are not counted.
    """
    known = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in known}
    outcomes = dict.fromkeys(("complete", "pruned", "failed", "impossible"), 0)
    for trial in known:
        if trial.state == TrialState.COMPLETE:
            outcomes["complete"] += 1
        elif trial.state == TrialState.PRUNED:
            outcomes["impossible" if FAILURE in trial.user_attrs else "pruned"] += 1
        elif trial.state == TrialState.FAIL and SURPLUS not in trial.user_attrs:
            outcomes["failed"] += trial.number not in retried
    return outcomes


def saved_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Return the seconds that pruning saved in total."""
    return float(sum(trial.user_attrs.get(SAVED_S, 0.0) for trial in trials))


def _process_has_died(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(OWNER)
    if owner is None:
        begun = trial.datetime_start
        return begun is not None and time.time() - begun.timestamp() > _OWNERLESS_S
    if runs_elsewhere(trial) or not owner["process"]:
        return False
    return bool(process_identity(int(owner["pid"])) != owner["process"])


def _process_namespace(owner: Mapping[str, str]) -> str:
    """Return the process-number namespace of a process: each container has its own."""
    return owner["process"].rpartition("]")[0]
