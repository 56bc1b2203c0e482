"""Storages of studies: journals that something happened to, and databases that refuse."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from locked import locked
from optuna.trial import FrozenTrial, TrialState

from scenetrack.errors import InputError, ScenetrackError, StoreError
from scenetrack.system import patience
from scenetrack.tuning import optuna_journal_storage, storage
from scenetrack.tuning.optuna_journal_storage import OptunaJournalLock, OptunaJournalStorage
from scenetrack.tuning.storage import one_line_storage_errors, open_storage, redacted
from scenetrack.tuning.trial_state import OWNER, fail_stale_trials


def no_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    raise AssertionError(f"trial {trial.number} is not lost")


def opened(path: Path) -> optuna.Study:
    storage = open_storage(f"journal:{path}", no_trial)
    return optuna.create_study(study_name="one", storage=storage, load_if_exists=True)


def journal(path: Path, trials: int = 2) -> list[str]:
    """The lines of a journal at ``path`` with finished trials."""
    study = opened(path)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    return path.read_text().splitlines(keepends=True)


def test_a_journal_that_is_held_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "studies.journal"
    study = opened(path)
    monkeypatch.setattr(patience, "SAID_AFTER_S", 0.1)
    monkeypatch.setattr(optuna_journal_storage, "TRY_S", 0.1)
    holder = FileLock(f"{path}.guard", thread_local=False)
    holder.acquire()
    threading.Timer(1, holder.release).start()
    study.set_user_attr("a", 1)
    assert caplog.messages[0].startswith(f"waiting for the journal {path}, which another program")
    monkeypatch.setattr(patience, "LONGEST_S", 0.3)
    with holder, pytest.raises(StoreError, match=f"the journal {path} was locked by another"):
        study.set_user_attr("a", 2)


class TestHalfLine:
    def test_is_cut_off_when_the_journal_is_written_to(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "studies.journal"
        whole = journal(path)
        path.write_text("".join(whole) + whole[-1][: len(whole[-1]) // 2])
        study = opened(path)
        study.optimize(lambda trial: 0.5, n_trials=1)
        assert "removing an unfinished line at the end of the file" in caplog.text
        assert len(opened(path).trials) == 3
        assert all(json.loads(line) for line in path.read_text().splitlines())
        assert path.read_text().startswith("".join(whole))

    def test_left_while_others_have_the_journal_open(self, tmp_path: Path) -> None:
        path = tmp_path / "studies.journal"
        journal(path)
        first, second = opened(path), opened(path)
        with path.open("a") as file:
            file.write('{"op_code":4,"wor')
        assert len(first.trials) == 2
        second.set_user_attr("written", "after it")
        assert first.user_attrs["written"] == "after it"

    def test_alone_in_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "studies.journal"
        path.write_text('{"op_code":0,"work')
        assert opened(path).trials == []

    @pytest.mark.parametrize("length", [1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16 + 7])
    def test_of_any_length(self, tmp_path: Path, length: int) -> None:
        path = tmp_path / "studies.journal"
        whole = "".join(journal(path))
        path.write_text(whole + "x" * length)
        lock = OptunaJournalLock(path)
        lock.acquire()
        lock.release()
        assert path.read_text() == whole


class TestOtherFile:
    @pytest.mark.parametrize("content", ["no journal\nat all", '{"op": 1}', "[]\n", "\0" * 20])
    def test_is_refused_and_left_as_it_is(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "notes.txt"
        path.write_text(content)
        with pytest.raises(InputError, match=r"a journal of studies is required, but .*notes\.txt"):
            open_storage(f"journal:{path}", no_trial)
        assert path.read_text() == content

    @pytest.mark.parametrize(
        "damage",
        [
            "[" * 100_000 + "\n",
            '{"op_code":' + "[" * 100_000 + "\n",
            "9" * 5000 + "\n",
            '{"op_code":5,"worker_id":"a","trial_id":0,"param_name":"x",'
            '"param_value_internal":"x","distribution":"[]"}\n',
            "oops\n",
            '{"op_code":4,"worker_id":"a"}\n',
            '{"op_code":99}\n',
            "5\n",
            "[1]\n",
            "null\n",
        ],
    )
    def test_damage_in_the_middle_is_one_line(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "studies.journal"
        whole = journal(path)
        path.write_text("".join([*whole[:3], damage, *whole[3:]]))
        with pytest.raises(InputError, match="is none, or damaged") as caught:
            open_storage(f"journal:{path}", no_trial)
        assert "\n" not in str(caught.value)

    def test_damage_that_comes_later_is_one_line_too(self, tmp_path: Path) -> None:
        path = tmp_path / "studies.journal"
        journal(path)
        study = opened(path)
        with path.open("a") as file:
            file.write("[" * 100_000 + "\n" + '{"op_code":4}\n')
        with pytest.raises(InputError, match=r"damaged \(nested too deeply\)"):
            study.get_trials()

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"Received the folder {tmp_path}: name a file"):
            open_storage(f"journal:{tmp_path}", no_trial)

    @pytest.mark.parametrize("address", ["studies.db", "", "journals:studies"])
    def test_no_storage_at_all(self, address: str) -> None:
        with pytest.raises(InputError, match="storage must be journal:FILE or the URL"):
            open_storage(address, no_trial)


class TestLock:
    def test_of_a_killed_process_is_taken_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "studies.journal"
        journal(path)
        process = multiprocessing.get_context("spawn").Process(target=hold_for_ever, args=(path,))
        process.start()
        held = tmp_path / "held"
        while not held.exists():
            assert process.is_alive()
            time.sleep(0.01)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert (tmp_path / "studies.journal.lock").exists()

        def pause(seconds: float) -> None:
            raise AssertionError("nobody to wait for")

        monkeypatch.setattr("time.sleep", pause)
        opened(path).set_user_attr("lives", True)
        assert opened(path).user_attrs == {"lives": True}
        assert not (tmp_path / "studies.journal.lock").exists()

    def test_of_another_machine_is_respected(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "studies.journal"
        journal(path)
        other = tmp_path / "studies.journal.lock"
        other.write_text("another machine")
        pauses = []

        def pause(seconds: float) -> None:
            assert other.read_text() == "another machine"
            pauses.append(seconds)
            if len(pauses) == 3:
                other.unlink()

        monkeypatch.setattr("time.sleep", pause)
        lock = OptunaJournalLock(path)
        assert lock.acquire()
        assert len(pauses) == 3
        assert other.read_text() == socket.gethostname()
        lock.release()
        assert not other.exists()


def hold_for_ever(path: Path) -> None:
    OptunaJournalLock(path).acquire()
    (path.parent / "held").touch()
    time.sleep(600)


class TestDatabase:
    def test_sqlite_without_a_warning(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}", no_trial)
            study = optuna.create_study(storage=storage)
            study.optimize(lambda trial: 1.0, n_trials=1)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
        assert not (tmp_path / "studies.db.guard").exists()

    @pytest.mark.parametrize(
        "address",
        [
            "postgresql+psycopg://me:secret@127.0.0.1:1/studies",
            "postgresql+psycopg://me:secret@host:port/studies",
            "nothing://me:secret@127.0.0.1/studies",
            "mysql+mysqldb://me:secret@127.0.0.1:1/studies",
        ],
    )
    def test_that_is_not_there_is_refused_at_once(
        self, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pause(seconds: float) -> None:
            raise AssertionError("nothing to wait for")

        monkeypatch.setattr("time.sleep", pause)
        with pytest.raises(InputError, match="cannot be opened") as caught:
            open_storage(address, no_trial)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_that_is_locked_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(patience, "SAID_AFTER_S", 0.3)
        monkeypatch.setattr(storage, "TRY_S", 0.1)
        database = tmp_path / "studies.db"
        address = f"sqlite:///{database}"
        study = optuna.create_study(study_name="one", storage=open_storage(address, no_trial))
        with caplog.at_level("INFO", "scenetrack"), locked(database, 1.5):
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        assert caplog.messages[0] == f"waiting for the storage {address}, which another " + (
            "program has locked"
        )
        assert len(caplog.messages) == 2
        with locked(database, 1.5):
            again = optuna.load_study(study_name="one", storage=open_storage(address, no_trial))
        assert [trial.state for trial in again.trials] == [TrialState.COMPLETE] * 2
        monkeypatch.setattr(patience, "LONGEST_S", 0.5)
        with (
            locked(database),
            one_line_storage_errors(address),
            pytest.raises(StoreError, match=r"storage sqlite.* was locked by .*the same command"),
        ):
            study.set_user_attr("a", 1)

    def test_that_goes_away_is_one_line(self, tmp_path: Path) -> None:
        address = f"sqlite:///{tmp_path / 'studies.db'}"
        study = optuna.create_study(storage=open_storage(address, no_trial))
        (tmp_path / "studies.db").write_bytes(b"gone")
        with (
            pytest.raises(ScenetrackError, match=r"does not answer .*same command again") as caught,
            one_line_storage_errors(address),
        ):
            study.set_user_attr("a", 1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("journal:studies.journal", "journal:studies.journal"),
        ("postgresql+psycopg://host/name", "postgresql+psycopg://host/name"),
        ("postgresql+psycopg://me@host/name", "postgresql+psycopg://me@host/name"),
        ("postgresql+psycopg://me:secret@host/name", "postgresql+psycopg://me:***@host/name"),
        ("postgresql+psycopg://me:s@cr/et@host/name", "postgresql+psycopg://me:***@host/name"),
        ("postgresql://host/name?password=secret", "postgresql://host/name?password=***"),
        ("mysql://h/n?user=me&password=s&a=b", "mysql://h/n?user=me&password=***&a=b"),
    ],
)
def test_passwords_are_not_shown(address: str, expected: str) -> None:
    assert redacted(address) == expected


class TestSignsOfLife:
    """Of trials in a journal, whose processes other machines cannot see."""

    @pytest.mark.parametrize(("age", "is_lost"), [(299, False), (301, True), (None, False)])
    def test_old_ones_fail_a_trial_of_another_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float | None, is_lost: bool
    ) -> None:
        lost: list[int] = []
        address = f"journal:{tmp_path / 'studies.journal'}"
        storage = open_storage(address, lambda study, trial: lost.append(trial.number))
        study = optuna.create_study(storage=storage)
        number = storage.create_new_trial(study._study_id)
        elsewhere = {"host": "another", "pid": "1", "process": "[1] 2"}
        storage.set_trial_user_attr(number, OWNER, elsewhere)
        now = time.time()
        if age is not None:
            assert isinstance(storage, OptunaJournalStorage)
            storage.record_heartbeat(number)
            monkeypatch.setattr(time, "time", lambda: now + age)
        fail_stale_trials(study, no_trial)
        assert lost == [0] * is_lost
        assert study.trials[0].state == (TrialState.FAIL if is_lost else TrialState.RUNNING)

    def test_are_written_while_a_trial_runs(self, tmp_path: Path) -> None:
        study = opened(tmp_path / "studies.journal")

        def run(trial: optuna.Trial) -> float:
            until = time.monotonic() + 10
            while not opened(tmp_path / "studies.journal").trials[0].system_attrs:
                assert time.monotonic() < until
            return 0.5

        study.optimize(run, n_trials=1)
        assert study.trials[0].state == TrialState.COMPLETE

    def test_of_a_trial_that_has_ended_are_nothing(self, tmp_path: Path) -> None:
        study = opened(tmp_path / "studies.journal")
        study.optimize(lambda trial: 0.5, n_trials=1)
        assert isinstance(study._storage, OptunaJournalStorage)
        study._storage.record_heartbeat(0)
        assert study.trials[0].state == TrialState.COMPLETE
