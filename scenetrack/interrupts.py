"""Ctrl-C and SIGTERM as exceptions that end the work, but not in the midst of a transaction.

An exception that a signal raises may come anywhere: inside a database's commit, which turns it
into an error of its own, or inside a callback, which swallows it. So signals are held back while a
store is written to, and a block that was interrupted ends as interrupted, whatever became of the
exception in between.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from scenetrack.errors import Terminated

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Until a callback that swallowed an interrupt has returned.
_AGAIN_S = 0.05


class _Heard:
    """What this process has heard; signals reach the main thread only.

    Attributes:
        number: the first signal; None where none came.
        raised: whether it has become an exception.
        once: whether later ones are let go.
        holding: how many blocks hold signals back.
    """

    def __init__(self, *, once: bool) -> None:
        self.number: int | None = None
        self.raised = False
        self.once = once
        self.holding = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        again = self.number is not None
        if again and self.once:
            return
        self.number = self.number or number
        # Whoever presses Ctrl-C a second time does not want to wait any longer.
        if again or not self.holding:
            self.raise_it()

    def raise_it(self) -> None:
        """Raise the signal."""
        self.raised = True
        raise self.interrupt()

    def interrupt(self) -> KeyboardInterrupt:
        """The signal as an exception."""
        return Terminated() if self.number == signal.SIGTERM else KeyboardInterrupt()

    def unraisable(self, unraisable: UnraisableHookArgs) -> None:
        """Have the process hear a signal once more that was raised where nobody can catch it.

        That is while a finalizer or a callback of the garbage collection runs: Python would print
        the exception, and go on.
        """
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        number, self.number, self.raised = self.number or signal.SIGINT, None, False
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()


_heard = _Heard(once=False)


@contextmanager
def listening() -> Iterator[None]:
    """Turn SIGTERM into Terminated and SIGINT into KeyboardInterrupt inside the block."""
    global _heard
    if not _in_main_thread():
        yield
        return
    outer, hook = _heard, sys.unraisablehook
    _heard = _Heard(once=False)
    previous = {number: signal.signal(number, _heard.hear) for number in _SIGNALS}
    sys.unraisablehook = _heard.unraisable
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _heard = outer


def listen_once() -> None:
    """The same until the process ends, for one that may be told to stop more than once.

    The second signal must not cut short what the first one began to close.
    """
    global _heard
    _heard = _Heard(once=True)
    for number in _SIGNALS:
        signal.signal(number, _heard.hear)
    sys.unraisablehook = _heard.unraisable


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back until the block has ended; one that came is raised then."""
    if not _in_main_thread():
        yield
        return
    _heard.holding += 1
    try:
        yield
    finally:
        _heard.holding -= 1
        _raise_waiting()


@contextmanager
def heard() -> Iterator[None]:
    """Inside a block that holds signals back: one that does not.

    A block in which a signal came ends with it, also where a library swallowed the exception, or
    turned it into another one.
    """
    if not _in_main_thread():
        yield
        return
    before, holding = _heard.number, _heard.holding
    _heard.holding = max(0, holding - 1)
    try:
        _raise_waiting()
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if _heard.number != before:
            raise _heard.interrupt() from error
        raise
    finally:
        _heard.holding = holding
    if _heard.number != before:
        raise _heard.interrupt()


def _raise_waiting() -> None:
    if _heard.number is not None and not _heard.raised and not _heard.holding:
        _heard.raise_it()


def _in_main_thread() -> bool:
    """Whether signals come here."""
    return threading.current_thread() is threading.main_thread()
