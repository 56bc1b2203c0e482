"""The MLflow store: made whole, and refused in one line where it is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.errors import InputError, ScenetrackError, Terminated
from scenetrack.records import Text
from scenetrack.tracking.store import one_line_errors


def _kill_while_making_the_store(folder: Path, size: int, number: signal.Signals) -> None:
    """Start a process that makes the store and signal it once its unfinished file has ``size``."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    words = [sys.executable, "-c", "from scenetrack import tracking; tracking.connect()"]
    unfinished = folder / ".mlflow.db.making" / "mlflow.db"
    shutil.rmtree(unfinished.parent, ignore_errors=True)
    with subprocess.Popen(words, cwd=folder, env=environment) as process:
        while not unfinished.exists() or unfinished.stat().st_size < size:
            assert process.poll() is None, "the store was finished before it could be killed"
            time.sleep(0.001)
        process.send_signal(number)
    assert process.returncode == -number


def test_a_process_killed_while_it_makes_the_store_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did leave, put in the store's place, is what MLflow alone would leave."""
    database = tmp_path / "mlflow.db"
    _kill_while_making_the_store(tmp_path, 0, signal.SIGTERM)
    _kill_while_making_the_store(tmp_path, 100_000, signal.SIGKILL)
    _kill_while_making_the_store(tmp_path, 500_000, signal.SIGKILL)
    assert not database.exists()
    unfinished = tmp_path / ".mlflow.db.making"
    (tmp_path / "ruin").mkdir()
    ruin = Path(shutil.copy(unfinished / "mlflow.db", tmp_path / "ruin"))
    database.touch()
    (tmp_path / "mlflow.db-journal").write_bytes(b"of an earlier start")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking.open_run(TrainMlpConfig(), name="p", tags={}) as tracker:
        pass
    assert MlflowClient(f"sqlite:///{database}").get_run(tracker.run_id).info.status == "FINISHED"
    assert {item.name for item in tmp_path.glob(".*")} == set()
    assert not (tmp_path / "mlflow.db-journal").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ruin}")
    with pytest.raises(
        InputError, match=f"{ruin} is only half initialised: move it away .*mv mlflow"
    ):
        tracking.connect()


@pytest.mark.parametrize("kind", ["folder", "text"])
def test_what_is_no_store_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "mlflow.db"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("notes")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    reason = "is a folder" if kind == "folder" else "is not an SQLite file"
    with pytest.raises(InputError, match=f"an MLflow store is required, but {path} {reason}"):
        tracking.connect()
    assert [item.name for item in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("bogus://x/y", "MLFLOW_TRACKING_URI must be .* Received: bogus://x/y"),
        ("mysql+foo://h/d", "the MLflow store mysql.* cannot be opened .*dialects:mysql.foo"),
        ("mysql+pyodbc://h/d", r"needs the database driver pyodbc: .*pip install 'pyodbc'"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line(
    monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "pyodbc", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=message) as caught:
        tracking.connect()
    assert "\n" not in str(caught.value)


def test_a_missing_driver_of_postgresql_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://h/d")
    with pytest.raises(InputError, match=r"driver psycopg: .*pip install 'psycopg\[binary\]'"):
        tracking.connect()


def test_a_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ScenetrackError, match=f"{uri} does not answer"):
        tracking.connect()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ui_opens_the_store_in_use_with_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[list[str]] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    record: Callable[[str, list[str]], None] = lambda _, words: started.append(words)  # noqa: E731
    monkeypatch.setattr(os, "execv", record)
    with caplog.at_level("WARNING", "scenetrack"):
        tracking.open_ui(port=_free_port())
        assert caplog.messages == []
        tracking.open_ui("0.0.0.0", _free_port())
    assert ["open to the network without a password" in line for line in caplog.messages] == [True]
    started.clear()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        port = probe.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be used"):
            tracking.open_ui(port=port)
    tracking.open_ui(port=port)
    words = started[0]
    assert words[words.index("--workers") + 1] == "1"
    assert words[words.index("--backend-store-uri") + 1] == os.environ["MLFLOW_TRACKING_URI"]
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    with pytest.raises(InputError, match=r"open http://tracking\.example"):
        tracking.open_ui()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), Terminated()])
def test_an_interrupt_behind_an_error_of_the_database_stays_one(
    interrupt: KeyboardInterrupt,
) -> None:
    def commit() -> None:
        try:
            try:
                raise interrupt
            except KeyboardInterrupt:
                raise OSError("database is locked")  # noqa: B904
        except OSError as error:
            raise MlflowException("database is locked") from error

    with pytest.raises(type(interrupt)), one_line_errors():
        commit()


@pytest.mark.parametrize("name", ["what?a", "a#b", "a%20b", "plain é", "a;b", "bad\udcff"])
def test_a_folder_of_any_name_has_its_own_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    tracker = tracking.begin_run(TrainMlpConfig(), name="x", tags={})
    tracker.log(Text("note.txt", "here"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert (tmp_path / name / "mlflow.db").stat().st_size
    (note,) = (tmp_path / name / "mlruns").rglob("note.txt")
    assert tracking.run_file(tracker.run_id, "note.txt").samefile(note)
