"""A store that another program has locked: waited for, and left in order where it stays so."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from locked import locked
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError
from tracked import start

from scenetrack import tracking
from scenetrack.errors import StoreError
from scenetrack.records import Metric, Param
from scenetrack.system import patience
from scenetrack.system.databases import driver_message, is_locked
from scenetrack.tracking import store, waiting


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LONGEST_S": 20, "SAID_AFTER_S": 0.3, "HURRIED_S": 0.3}.items():
        monkeypatch.setattr(patience, name, seconds)
    monkeypatch.setattr(waiting, "TRY_S", 0.1)


def test_a_locked_store_is_waited_for_at_its_opening(
    client: MlflowClient, store_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store._client.cache_clear()
    with caplog.at_level("INFO", "scenetrack"), locked(store_folder / "mlflow.db", 1.5):
        tracking.connect()
    assert [line.split(" the ")[0] for line in caplog.messages[:1]] == ["waiting for"]
    assert len(caplog.messages) == 2


def test_a_run_goes_on_when_the_store_is_free_again(
    client: MlflowClient, store_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "scenetrack")
    with start() as tracker, locked(store_folder / "mlflow.db", 1.5):
        tracker.log(Metric("m", 1.0), Param("waited", "yes"))
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics["m"]) == ("FINISHED", 1.0)
    assert run.data.params["waited"] == "yes"
    first, last = caplog.messages
    assert first == f"waiting for the MLflow store {tracking.tracking_uri()}, which another " + (
        "program has locked"
    )
    assert "is free again after" in last


def test_a_wait_without_end_is_one_line_that_says_what_becomes_of_the_run(
    client: MlflowClient,
    store_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(patience, "LONGEST_S", 0.5)
    started = time.monotonic()
    run = start()
    tracker = run.__enter__()
    with locked(store_folder / "mlflow.db"):
        with pytest.raises(StoreError, match="was locked by another program for") as caught:
            tracker.log(Metric("m", 1.0))
        assert not run.__exit__(StoreError, caught.value, None)
    assert time.monotonic() - started < 10
    assert "SELECT" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert f"run {tracker.run_id} stays RUNNING until" in caplog.messages[-1]
    assert client.get_run(tracker.run_id).info.status == "RUNNING"


def test_an_error_of_the_database_is_told_in_its_own_words() -> None:
    cause = OperationalError("SELECT 'database is locked'", {}, sqlite3.OperationalError("full"))
    error = MlflowException(str(cause))
    error.__cause__ = cause
    assert driver_message(error) == "full"
    assert not is_locked(error)
    assert is_locked(OperationalError("", {}, sqlite3.OperationalError("database is locked")))
    assert is_locked(MlflowException("Lock wait timeout exceeded; try restarting transaction"))
