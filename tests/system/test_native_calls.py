"""Signals end long calls into libraries: at once where those can be asked, else after a while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system import native_calls
from scenetrack.system.interrupts import handle_signals
from scenetrack.system.native_calls import native_call

# A call of minutes that returns to Python at its end only.
_DEAF = """
import hashlib
from scenetrack.system import native_calls
from scenetrack.system.interrupts import handle_signals
native_calls.GRACE_S = 0.3
with handle_signals(), native_calls.native_call():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
_DEAF_IN_A_THREAD = """
import hashlib
from concurrent.futures import ThreadPoolExecutor
from scenetrack.system import native_calls
from scenetrack.system.interrupts import handle_signals
native_calls.GRACE_S = 0.3

def work():
    with native_calls.native_call():
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

with handle_signals(), ThreadPoolExecutor() as pool:
    pool.submit(work).result()
"""
_PREDICTS = """
import logging, sys
from scenetrack.cli import main
from scenetrack.graphs.runtime import OnnxModel
run = OnnxModel.run

def announced(*args, **inputs):
    print("begun", flush=True)
    return run(*args, **inputs)

OnnxModel.run = announced
sys.exit(main(["predict", "slow.onnx", "a.png", "-o", "rows.csv"]))
"""
ENDINGS = [(signal.SIGINT, "interrupted\n"), (signal.SIGTERM, "terminated\n")]


def ended(script: str, number: signal.Signals, folder: Path) -> tuple[int, str]:
    """Send a signal half a second after the script has begun; return exit code and stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(number)
            error = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    return process.returncode, error


@pytest.mark.parametrize(("number", "text"), ENDINGS)
@pytest.mark.parametrize("script", [_DEAF, _DEAF_IN_A_THREAD])
def test_a_call_that_cannot_be_asked_ends_with_the_process(
    script: str, number: signal.Signals, text: str, tmp_path: Path
) -> None:
    assert ended(script, number, tmp_path) == (128 + number, text)


def test_onnx_runtime_is_asked(tmp_path: Path) -> None:
    write_slow_bundle(tmp_path / "slow.onnx")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    began = time.monotonic()
    code, error = ended(_PREDICTS, signal.SIGTERM, tmp_path)
    assert (code, error.splitlines()[-1]) == (143, "terminated")
    # All of its operators would take minutes.
    assert time.monotonic() - began < 60
    assert not (tmp_path / "rows.csv").exists()


def test_calls_that_begin_after_the_signal_are_asked_too() -> None:
    asked: list[str] = []

    def call_after_signal() -> None:
        with handle_signals():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                wait_until_stopping()
                with native_call(lambda: asked.append("at once")):
                    pass

    with pytest.raises(KeyboardInterrupt):
        call_after_signal()
    with native_call(lambda: asked.append("later")):
        pass
    assert asked == ["at once"]


def wait_until_stopping() -> None:
    deadline = time.monotonic() + 10
    while not native_calls._stopping:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write_slow_bundle(path: Path) -> None:
    """Write a bundle that multiplies matrices for minutes."""
    builder = GraphBuilder("slow")
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    means = builder.node("ReduceMean", builder.node("Cast", images, to=1), axes, keepdims=0)
    # Of the image, so that it cannot be computed beforehand.
    first = builder.node(
        "Mul", builder.node("ReduceMean", means), builder.constant("no", np.float32(0))
    )
    shape = builder.constant("shape", np.array([1500, 1500], np.int64))
    matrix = builder.node("Expand", first, shape)
    for _ in range(500):
        matrix = builder.node("MatMul", matrix, matrix)
    scores = builder.node("Add", means, builder.node("ReduceMean", matrix, keepdims=0))
    builder.output("scores", scores, np.float32, ["batch", 3])
    builder.output("probabilities", builder.node("Softmax", scores), np.float32, ["batch", 3])
    label = builder.node("ArgMax", scores, axis=1, keepdims=0)
    builder.output("label", label, np.int64, ["batch"])
    about = {"kind": "bundle", "classes": json.dumps(["a", "b", "c"]), "image_size": "8"}
    path.write_bytes(builder.build(about).SerializeToString())
