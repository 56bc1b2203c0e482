"""``mlflow models serve`` of a logged bundle, asked over HTTP as any client would."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import entities
from workplace import SCRIPTS, Workplace, finished

READY_WITHIN = 120  # seconds; about 8 on an idle machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(
    workplace: Workplace, twins: tuple[entities.Run, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a server of the bundle of a run, started as the command says that wrote it."""
    run_id = twins[0].info.run_id
    target = str(tmp_path_factory.mktemp("served") / "scene.onnx")
    out, _ = finished(workplace.start("scenetrack", "bundle", run_id, "-o", target))
    command = out[out.index("mlflow models serve") :].split()
    port = str(free_port())
    command[command.index("--port") + 1] = port
    log = Path(target).with_name("server.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [SCRIPTS / command[0], *command[1:]],
            cwd=workplace.root,
            env=workplace.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(address, process, log)
        yield address
    finally:
        # mlflow starts the server as a child of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def ask(address: str, body: object) -> tuple[int, Any]:
    """Status and JSON of the server's answer."""
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def in_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_two_photographs_get_the_answer_of_predict(
    workplace: Workplace, twins: tuple[entities.Run, ...], server: str
) -> None:
    paths = [workplace.data / "test" / name / f"{name}1.jpg" for name in ("columns", "bars")]
    status, answer = ask(server, {"inputs": [in_base64(path) for path in paths]})
    assert status == 200
    words = ["predict", twins[0].info.run_id, *map(str, paths)]
    out, _ = finished(workplace.start("scenetrack", *words))
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == len(answer["predictions"]) == 2
    for row, one in zip(rows, answer["predictions"], strict=True):
        assert one["label"] == row["label"]
        assert one["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert set(one["probabilities"]) == {"bars", "checks", "columns"}
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_what_is_no_image_is_refused_in_words(workplace: Workplace, server: str) -> None:
    good = in_base64(workplace.data / "test" / "bars" / "bars0.png")
    broken = base64.b64encode(b"\xff\xd8\xff no photograph").decode()
    rows = [{"image": good}, {"image": broken}]
    status, answer = ask(server, {"dataframe_records": rows})
    assert status == 400
    assert answer["message"].startswith("image 2 of the request cannot be used")
    assert "Traceback" not in json.dumps(answer)
    assert good not in json.dumps(answer)
    status, answer = ask(server, {"dataframe_records": [{"photograph": good}]})
    assert status == 400
    status, answer = ask(server, {"inputs": [good]})
    assert (status, len(answer["predictions"])) == (200, 1)
