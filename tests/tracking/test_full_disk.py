"""A store whose disk is full: named in one line, and its run is ended all the same."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tracked import run_of, start

from scenetrack import tracking
from scenetrack.errors import StoreError, WriteError
from scenetrack.records import Param, Text
from scenetrack.tracking.reserve import reserved_room
from scenetrack.tracking.store import one_line_errors

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_database_is_one_line_without_sql(client: MlflowClient) -> None:
    filled = []

    def fill(_: object, cursor: sqlite3.Cursor, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT INTO params"):
            cursor.execute("PRAGMA max_page_count = 1")
            filled.append(cursor.connection)

    with start() as tracker:
        pass
    event.listen(Engine, "before_cursor_execute", fill)
    try:
        with pytest.raises(StoreError, match=r"the disk of the MLflow store .* is full") as caught:
            tracker.log(*(Param(f"p{index}", "x" * 4000) for index in range(50)))
    finally:
        event.remove(Engine, "before_cursor_execute", fill)
        for connection in filled:
            connection.execute(f"PRAGMA max_page_count = {2**30}")
    assert "INSERT" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run_of(client, tracker).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a", None, "/runs/a"), "/runs/a"),
        (shutil.Error([("/tmp/b", "/runs/b", "[Errno 28] No space left on device")]), "/runs/b"),
        (FULL, "a file in .* or of the MLflow store sqlite.*"),
    ],
)
@pytest.mark.usefixtures("client")
def test_a_full_disk_of_artifacts_is_named(error: OSError, named: str) -> None:
    with pytest.raises(WriteError, match=f"^{named} cannot be written"), one_line_errors():
        raise error


@pytest.mark.usefixtures("client")
def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FULL

    with start() as tracker:
        monkeypatch.setattr(Path, "write_text", refuse)
        with pytest.raises(WriteError, match=r"notes\.txt cannot be written"):
            tracker.log(Text("notes.txt", "text"))


def test_room_is_held_without_a_name(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail
    with reserved_room(tmp_path):
        assert list(tmp_path.iterdir()) == []
    assert free > 0
    with reserved_room(None), reserved_room(tmp_path / "missing"):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_run_is_ended_on_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{small_disk / 'mlflow.db'}")
    run = start()
    tracker = run.__enter__()
    (small_disk / "others").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(StoreError, match="is full") as caught:
        tracker.log(*(Param(f"p{index}", "x" * 4000) for index in range(50)))
    assert not run.__exit__(StoreError, caught.value, None)
    found = tracking.connect().get_run(tracker.run_id)
    assert found.info.status == "FAILED"
    assert "is full" in found.data.tags["error"]
