"""Deferred signals, and signals that arrive where no exception can be caught."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from scenetrack.errors import Terminated
from scenetrack.system.interrupts import allow_signals, defer_signals, handle_signals

# The signal comes inside a callback of a weak reference, which swallows what is raised there.
_BEGUN = """
import signal, sys, time, weakref
from scenetrack.errors import Terminated
from scenetrack.system.interrupts import defer_signals, handle_signals
from scenetrack.stages.tune.workers import become_worker

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
    with handle_signals():
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
    with defer_signals():
        signal.raise_signal(signal.{name})
    print("received once")
"""

SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


@pytest.mark.parametrize(
    ("name", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")]
)
@pytest.mark.parametrize(("body", "after"), [(_MAIN, []), (_WORKER, ["received once"])])
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


@pytest.fixture
def events() -> Iterator[list[str]]:
    before = [signal.getsignal(number) for number, _ in SIGNALS]
    yield []
    assert [signal.getsignal(number) for number, _ in SIGNALS] == before


@pytest.mark.parametrize(("number", "raised"), SIGNALS)
def test_deferred_signal_is_raised_when_the_outermost_block_ends(
    events: list[str], number: signal.Signals, raised: type[BaseException]
) -> None:
    with pytest.raises(raised) as caught, handle_signals():  # noqa: PT012
        with defer_signals():
            with defer_signals():
                signal.raise_signal(number)
                events.append("inner")
            events.append("outer")
        events.append("after")
    assert caught.type is raised
    assert events == ["inner", "outer"]


def test_second_signal_is_not_deferred(events: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), handle_signals(), defer_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        events.append("first")
        signal.raise_signal(signal.SIGINT)
        events.append("second")
    assert events == ["first"]


def test_allow_signals_inside_defer_signals(events: list[str]) -> None:
    def work() -> None:
        with defer_signals():
            try:
                with allow_signals():
                    signal.raise_signal(signal.SIGTERM)
                    events.append("not reached")
            except Terminated:
                # What is closed now must not be cut short by the same signal.
                with defer_signals():
                    events.append("closed")
                raise

    with pytest.raises(Terminated), handle_signals():
        work()
    assert events == ["closed"]


def test_deferred_signal_is_raised_at_the_start_of_allow_signals(events: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), handle_signals(), defer_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        with allow_signals():
            events.append("begun")
    assert events == []


def test_allow_signals_inside_two_that_defer(events: list[str]) -> None:
    def work() -> None:
        with defer_signals(), defer_signals(), allow_signals():
            signal.raise_signal(signal.SIGINT)
            events.append("not reached")

    with pytest.raises(KeyboardInterrupt), handle_signals():
        work()
    assert events == []


def test_a_second_swallowed_signal_is_an_interrupt_too() -> None:
    def work() -> None:
        with allow_signals():
            _nothing()

    with handle_signals():
        with pytest.raises(KeyboardInterrupt):
            work()
        with pytest.raises(KeyboardInterrupt):
            work()


def _import_error() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("numpy") from None


def _nothing() -> None:
    with ExitStack() as stack:
        stack.push(lambda *of_error: True)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("library", [_import_error, _nothing])
def test_whatever_a_library_makes_of_it_an_interrupt_stays_one(
    library: Callable[[], None],
) -> None:
    with pytest.raises(KeyboardInterrupt), handle_signals(), allow_signals():
        library()


@pytest.mark.parametrize("block", [defer_signals, allow_signals])
def test_without_a_signal_errors_pass(block: Callable[[], AbstractContextManager[None]]) -> None:
    with pytest.raises(ImportError, match="numpy"), handle_signals(), block():
        raise ImportError("numpy")


def test_an_earlier_signal_does_not_return() -> None:
    with handle_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with defer_signals(), allow_signals():
            pass
        with pytest.raises(ImportError), allow_signals():
            raise ImportError("of what is closed afterwards")


def test_other_threads_defer_nothing(events: list[str]) -> None:
    def work() -> None:
        with handle_signals(), defer_signals(), allow_signals():
            events.append("begun")
            release.wait(10)

    release = threading.Event()
    thread = threading.Thread(target=work)
    with handle_signals():
        thread.start()
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        release.set()
        thread.join()
    assert events == ["begun"]
