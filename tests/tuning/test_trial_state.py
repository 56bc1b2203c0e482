"""Trials of a study: whose they are, which count, and what becomes of those of dead processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError

from scenetrack.config import TARGETS, TuneConfig
from scenetrack.errors import ConfigError, ScenetrackError, StoreError
from scenetrack.tuning.per_trial_sampler import PerTrialSampler
from scenetrack.tuning.space import search_space
from scenetrack.tuning.trial_state import (
    FAILURE,
    OWNER,
    RETRY_OF,
    SURPLUS,
    count_outcomes,
    draws_before,
    fail_stale_trials,
    finished,
    is_surplus,
    own_process,
    retry,
    runs_elsewhere,
)
from scenetrack.tuning.worker import Worker

COMPLETE, PRUNED, FAIL, RUNNING, WAITING = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAIL,
    TrialState.RUNNING,
    TrialState.WAITING,
)


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize")


@pytest.fixture(scope="module")
def dead() -> dict[str, str]:
    """What a process that has ended said of itself."""
    code = (
        "import json; from scenetrack.tuning.trial_state import own_process; print(own_process())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    found = dict(part.split(": ", 1) for part in printed.strip("{}\n").replace("'", "").split(", "))
    assert set(found) == {"host", "pid", "process"}
    return found


def add(study: optuna.Study, state: TrialState, **attributes: object) -> FrozenTrial:
    value = 0.5 if state == COMPLETE else None
    study.add_trial(create_trial(state=state, value=value, user_attrs=attributes))
    return study.trials[-1]


def begun(study: optuna.Study, said: Mapping[str, str] | None, x: float = 0.25) -> FrozenTrial:
    study.enqueue_trial({"x": x})
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    if said is not None:
        trial.set_user_attr(OWNER, dict(said))
    return study.trials[trial.number]


def stale(study: optuna.Study) -> list[int]:
    """Numbers of the trials that ``fail_stale_trials`` found."""
    found: list[int] = []

    def lost(of: optuna.Study, trial: FrozenTrial) -> None:
        found.append(trial.number)
        retry(of, trial)

    fail_stale_trials(study, lost)
    return found


class TestStale:
    def test_of_a_dead_process_is_failed_and_tried_again(
        self, study: optuna.Study, dead: dict[str, str]
    ) -> None:
        begun(study, dead)
        assert stale(study) == [0]
        first, second = study.trials
        assert (first.state, second.state) == (FAIL, WAITING)
        assert second.user_attrs == {RETRY_OF: 0}
        again = study.ask()
        assert (again.number, again.suggest_float("x", 0, 1)) == (1, 0.25)
        assert stale(study) == []

    def test_of_this_process_is_left_alone(self, study: optuna.Study) -> None:
        begun(study, own_process())
        assert stale(study) == []
        assert study.trials[0].state == RUNNING

    @pytest.mark.parametrize("other", [{"host": "another"}, {"process": "pid:[1] 5"}])
    def test_of_a_process_that_cannot_be_seen_is_left_alone(
        self, study: optuna.Study, dead: dict[str, str], other: dict[str, str]
    ) -> None:
        trial = begun(study, dead | other)
        assert runs_elsewhere(trial)
        assert stale(study) == []

    def test_later_process_with_the_same_number(self, study: optuna.Study) -> None:
        own = own_process()
        begun(study, own | {"process": own["process"] + "0"})
        assert stale(study) == [0]

    def test_without_an_owner_is_given_a_minute(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trial = begun(study, None)
        assert not runs_elsewhere(trial)
        assert stale(study) == []
        later = datetime.now() + timedelta(seconds=61)
        monkeypatch.setattr("time.time", later.timestamp)
        assert stale(study) == [0]

    def test_that_fails_again_is_given_up(
        self, study: optuna.Study, dead: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        begun(study, dead)
        stale(study)
        study.ask().set_user_attr(OWNER, dead)
        assert stale(study) == [1]
        assert [trial.state for trial in study.trials] == [FAIL, FAIL]
        assert "trial 1 failed for the second time: it is not tried again" in caplog.text

    @pytest.mark.parametrize("state", [COMPLETE, PRUNED, RUNNING, WAITING])
    def test_only_a_failed_trial_is_tried_again(
        self, study: optuna.Study, state: TrialState
    ) -> None:
        retry(study, add(study, state))
        assert len(study.trials) == 1


class TestCounting:
    def test_pruned_trials_count_and_others_do_not(self, study: optuna.Study) -> None:
        for state in (COMPLETE, FAIL, PRUNED, RUNNING, WAITING):
            add(study, state)
        assert [trial.number for trial in finished(study)] == [0, 2]

    def test_surplus(self, study: optuna.Study) -> None:
        for state in (COMPLETE, FAIL, PRUNED, RUNNING, RUNNING):
            add(study, state)
        # Before trial 4 three were begun that did not fail: 0, 2 and 3.
        assert is_surplus(study, 4, 3)
        assert not is_surplus(study, 4, 4)
        assert not is_surplus(study, 3, 3)

    def test_counts(self, study: optuna.Study) -> None:
        for state in (COMPLETE, COMPLETE, FAIL, FAIL, PRUNED, RUNNING, WAITING):
            add(study, state)
        add(study, FAIL, **{SURPLUS: True})
        add(study, PRUNED, **{FAILURE: "no patch fits"})
        add(study, COMPLETE, **{RETRY_OF: 2})
        assert count_outcomes(study) == {"complete": 3, "pruned": 1, "failed": 1, "impossible": 1}

    @settings(deadline=None, max_examples=50)
    @given(wanted=st.integers(1, 5), order=st.randoms(use_true_random=False))
    def test_never_more_than_wanted(self, wanted: int, order: object) -> None:
        """Trials begin, finish and die in any order; each verdict is that of its own moment."""
        study = optuna.create_study()
        going: list[int] = []
        for _ in range(30):
            what = order.choice(["begin", "finish", "die"])  # type: ignore[attr-defined]
            if what == "begin":
                trial = study.ask()
                if is_surplus(study, trial.number, wanted):
                    study.tell(trial, state=FAIL)
                else:
                    going.append(trial.number)
            elif going:
                number = going.pop(order.randrange(len(going)))  # type: ignore[attr-defined]
                study.tell(number, 1.0) if what == "finish" else study.tell(number, state=FAIL)
        for number in going:
            study.tell(number, 1.0)
        assert len(finished(study)) <= wanted

    def test_draws_before_leaves_out_retries_and_surplus(self, study: optuna.Study) -> None:
        add(study, COMPLETE)
        add(study, FAIL, **{SURPLUS: True})
        add(study, COMPLETE, **{RETRY_OF: 0})
        add(study, COMPLETE)
        assert draws_before(study, 4) == 2


class NumberSampler(optuna.samplers.RandomSampler):
    """Says the number that it was made for."""

    def __init__(self, number: int) -> None:
        super().__init__(seed=0)
        self._number = number

    def sample_independent(self, study: object, trial: object, name: str, kind: object) -> float:
        return float(self._number)


def test_trials_draw_by_their_own_number(study: optuna.Study) -> None:
    study.sampler = PerTrialSampler(NumberSampler)
    first, second = study.ask(), study.ask()
    kind = FloatDistribution(0, 9)
    assert second.suggest_float("x", kind.low, kind.high) == 1.0
    assert first.suggest_float("x", kind.low, kind.high) == 0.0


class TestWorker:
    def worker(self, study: optuna.Study, run: object, trials: int = 3) -> Worker:
        config = TuneConfig(target="handcrafted", trials=trials, sampler="random")
        space = search_space(TARGETS["handcrafted"].config)

        def lost(of: optuna.Study, trial: FrozenTrial) -> None:
            retry(of, trial)

        return Worker(study, config, space, run, lost)  # type: ignore[arg-type]

    def test_runs_what_is_missing(self, study: optuna.Study) -> None:
        add(study, COMPLETE)
        add(study, FAIL)
        self.worker(study, lambda trial, given: (0.5,)).work()
        assert [trial.state for trial in study.trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE]
        assert study.trials[2].user_attrs[OWNER]["host"] == socket.gethostname()

    def test_does_nothing_where_there_are_enough(self, study: optuna.Study) -> None:
        for _ in range(3):
            add(study, PRUNED)
        self.worker(study, None).work()
        assert len(study.trials) == 3

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("no server")])
    def test_stopped_trial_is_tried_again(self, study: optuna.Study, error: BaseException) -> None:
        def stop(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            raise error

        with pytest.raises(type(error)):
            self.worker(study, stop).work()
        drawn = study.trials[0].params
        assert [trial.state for trial in study.trials] == [FAIL, WAITING]
        self.worker(study, lambda trial, given: (0.5,)).work()
        assert [trial.state for trial in study.trials] == [FAIL, COMPLETE, COMPLETE, COMPLETE]
        assert study.trials[1].params == drawn
        assert study.trials[1].user_attrs[RETRY_OF] == 0

    def test_interrupt_after_the_end_of_a_trial(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = self.worker(study, lambda trial, given: (0.5,))
        tell = study._storage.set_trial_state_values

        def interrupted(*given: object, **named: object) -> bool:
            tell(*given, **named)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(study._storage, "set_trial_state_values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.work()
        assert [trial.state for trial in study.trials] == [COMPLETE]

    @pytest.mark.parametrize("notices", [False, True])
    def test_trial_that_another_process_took_for_dead(
        self, study: optuna.Study, caplog: pytest.LogCaptureFixture, notices: bool
    ) -> None:
        def run(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            if trial.number == 1:
                study._storage.set_trial_state_values(trial._trial_id, FAIL)
                if notices:
                    trial.report(0.5, 1)
            return (0.5,)

        self.worker(study, run).work()
        assert [trial.state for trial in study.trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE]
        assert "trial 1 was taken for dead by another process" in caplog.text

    def test_other_errors_are_not_hidden(self, study: optuna.Study) -> None:
        def run(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            raise ZeroDivisionError("not ours")

        with pytest.raises(ZeroDivisionError, match="not ours"):
            self.worker(study, run).work()

    @pytest.mark.parametrize("error", [OperationalError("SELECT", {}, OSError()), OSError("disk")])
    def test_storage_that_does_not_take_a_trials_end(
        self, study: optuna.Study, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def away(*given: object, **named: object) -> bool:
            raise error

        def run(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            monkeypatch.setattr(study._storage, "set_trial_state_values", away)
            monkeypatch.setattr(study._storage, "get_trial", away)
            return (0.5,)

        with pytest.raises(type(error)):
            self.worker(study, run).work()

    def test_impossible_settings_count_as_stopped(self, study: optuna.Study) -> None:
        def refuse(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            raise ConfigError("not together")

        self.worker(study, refuse).work()
        assert [trial.state for trial in study.trials] == [PRUNED] * 3

    def test_failures_one_after_the_other_end_it(self, study: optuna.Study) -> None:
        def fail(trial: optuna.Trial, given: object) -> tuple[float, ...]:
            raise ScenetrackError(f"failure {trial.number}")

        with pytest.raises(ScenetrackError, match="failure 2"):
            self.worker(study, fail).work()
        assert [trial.state for trial in study.trials] == [FAIL] * 3

    def test_trials_elsewhere_are_not_waited_for(
        self, study: optuna.Study, dead: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "scenetrack")
        begun(study, dead | {"host": "another"})
        self.worker(study, None, trials=1).work()
        assert "the last trials are running on another" in caplog.text
