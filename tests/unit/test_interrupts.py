"""Signals that come while nobody can catch an exception."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The signal comes inside a callback of a weak reference, which swallows what is raised there.
_BEGUN = """
import signal, sys, time, weakref
from scenetrack.errors import Terminated
from scenetrack.interrupts import sigterm_raises
from scenetrack.stages.workers import become_worker

class Thing:
    pass

def callback(reference):
    signal.raise_signal(signal.{name})

def work():
    thing = Thing()
    reference = weakref.ref(thing, callback)
    del thing
    time.sleep(30)
"""
_MAIN = """
try:
    with sigterm_raises():
        work()
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""
_WORKER = """
try:
    become_worker(20)
    work()
except KeyboardInterrupt as error:
    print(type(error).__name__)
    signal.raise_signal(signal.{name})
    print("heard once")
"""


@pytest.mark.parametrize(
    ("name", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")]
)
@pytest.mark.parametrize(("body", "after"), [(_MAIN, []), (_WORKER, ["heard once"])])
def test_swallowed_interrupt_comes_again(
    name: str, raised: str, body: str, after: list[str]
) -> None:
    script = (_BEGUN + body).format(name=name)
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    assert run.stdout.split("\n")[:-1] == [raised, *after]
    assert run.stderr == ""


def test_other_exceptions_of_callbacks_are_shown() -> None:
    script = (
        (_BEGUN + _MAIN)
        .format(name="SIGINT")
        .replace("signal.raise_signal(signal.SIGINT)", "raise OSError('gone')")
    )
    run = subprocess.run(
        [sys.executable, "-c", script.replace("sleep(30)", "sleep(0)")],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert "OSError: gone" in run.stderr
