"""Studies on the tiny data set, their processes stopped in the middle of trials, and what stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import optuna
from mlflow import entities
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from workplace import SCRIPTS, Workplace, flags

from scenetrack.tuning.storage import open_storage
from scenetrack.tuning.trial_state import FINISHED, OWNER, RETRY_OF, RUN, SURPLUS

NAME = "hunted"
# By the tests themselves, to be closed at the end of each.
OPENED: list[BaseStorage] = []
_TINY = {
    "image_size": "192",
    "step": "4",
    "bin_sizes": "4,6",
    "encoder": "bag_of_words",
    "codebook_size": "8",
    "pca": "8",
    "folds": "2",
    "kernels": "linear",
}
_PATIENCE_S = 150


@dataclass(frozen=True)
class Hunt:
    """A study whose processes are killed.

    Attributes:
        place: its folder and its MLflow store.
        storage: of the study.
        server: the address of a tracking server; empty where the store is used directly.
    """

    place: Workplace
    storage: str
    server: str = ""

    def start(self, trials: int, workers: int = 1) -> subprocess.Popen[str]:
        """``scenetrack tune`` in a process group of its own."""
        settings = {
            "target": "handcrafted",
            "data": str(self.place.data),
            "study": NAME,
            "storage": self.storage,
            "trials": str(trials),
            "workers": str(workers),
            "sampler": "random",
            "experiment": NAME,
        }
        server = {"MLFLOW_TRACKING_URI": self.server} if self.server else {}
        return subprocess.Popen(
            [SCRIPTS / "scenetrack", "tune", *flags(settings | _TINY)],
            cwd=self.place.root,
            env=self.place.environment | {"OMP_NUM_THREADS": "1"} | server,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def study(self) -> optuna.Study:
        def lost(study: optuna.Study, trial: FrozenTrial) -> None:
            raise AssertionError("the test itself begins no trial")

        storage = open_storage(self.storage, lost)
        OPENED.append(storage)
        return optuna.load_study(study_name=NAME, storage=storage)

    def stop_at_work(
        self, groups: Collection[subprocess.Popen[str]], count: int
    ) -> list[FrozenTrial]:
        """Freeze all processes of the groups at a moment when ``count`` trials are in work.

        Each of those trials has its MLflow run. Trials of dead processes do not count.
        """
        study: optuna.Study | None = None
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            for one in groups:
                assert one.poll() is None, one.communicate()
            try:
                study = study or self.study
            except KeyError:
                time.sleep(0.1)
                continue
            if len(_at_work(study)) >= count:
                send(groups, signal.SIGSTOP)
                caught = _at_work(study)
                if len(caught) >= count:
                    return caught
                send(groups, signal.SIGCONT)
            time.sleep(0.02)
        raise AssertionError(f"there were never {count} trials in work")

    def check(self, trials: int, interrupted: Collection[FrozenTrial], status: str) -> None:
        """Hold that the study ended with all it was asked for, and nothing twice.

        Args:
            trials: that were asked for.
            interrupted: those that were in work when their processes were stopped.
            status: of their MLflow runs.
        """
        known = self.study.trials
        ended = [one for one in known if one.state in FINISHED]
        assert len(ended) == trials
        assert not [one for one in known if one.state == TrialState.RUNNING]
        for one in interrupted:
            assert known[one.number].state == TrialState.FAIL
        again = Counter(one.user_attrs[RETRY_OF] for one in known if RETRY_OF in one.user_attrs)
        first = {one.number for one in interrupted if RETRY_OF not in one.user_attrs}
        assert again == dict.fromkeys(first, 1)
        for one in known:
            if RETRY_OF in one.user_attrs:
                assert one.params == known[one.user_attrs[RETRY_OF]].params
        self._check_runs(known, {one.number for one in interrupted}, status)

    def _check_runs(
        self, known: Collection[FrozenTrial], interrupted: Collection[int], status: str
    ) -> None:
        (parent,) = self.place.runs(NAME)
        assert (parent.info.status, parent.data.tags["status"]) == ("FINISHED", "completed")
        assert "error" not in parent.data.tags
        assert "not-to-be-shown" not in parent.data.params["storage"]
        children = self.children(parent)
        of_trials = [one.user_attrs[RUN] for one in known if RUN in one.user_attrs]
        refits = [run for run in children.values() if run.info.run_name.startswith("best: trial")]
        assert len(refits) == 1
        assert refits[0].info.status == "FINISHED"
        begun_without_end = set(children) - set(of_trials) - {refits[0].info.run_id}
        assert {children[run].info.status for run in begun_without_end} <= {"FAILED", "KILLED"}
        assert len(set(of_trials)) == len(of_trials)
        for one in known:
            if one.number in interrupted:
                assert children[one.user_attrs[RUN]].info.status == status
            elif SURPLUS not in one.user_attrs:
                assert one.state in FINISHED
                run = children[one.user_attrs[RUN]]
                assert (run.info.status, run.info.run_name) == ("FINISHED", f"trial {one.number}")

    def children(self, parent: entities.Run) -> dict[str, entities.Run]:
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        found = self.place.client.search_runs([parent.info.experiment_id], query)
        return {run.info.run_id: run for run in found}


def close_storages() -> None:
    for storage in OPENED:
        storage.remove_session()
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
    OPENED.clear()


def send(groups: Collection[subprocess.Popen[str]], number: signal.Signals) -> None:
    """A signal to all processes of the groups."""
    for one in groups:
        os.killpg(one.pid, number)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def pid_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[OWNER]["pid"])


def _at_work(study: optuna.Study) -> list[FrozenTrial]:
    states = (TrialState.RUNNING,)
    found = [one for one in study.get_trials(deepcopy=True, states=states) if RUN in one.user_attrs]
    return [one for one in found if _lives(pid_of(one))]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
