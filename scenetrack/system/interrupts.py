"""Ctrl-C and SIGTERM as exceptions, deferred while a store is written to.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

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
        count: of signals.
        raised: whether they have become exceptions.
        once: whether later ones are let go.
        holding: how many blocks hold signals back.
    """

    def __init__(self, *, once: bool) -> None:
        self.number: int | None = None
        self.count = 0
        self.raised = False
        self.once = once
        self.holding = 0
        self._again: threading.Timer | None = None
        self._otherwise = sys.unraisablehook

    def begin(self) -> dict[int, Any]:
        """Handle signals from now on; the handlers before."""
        sys.unraisablehook = self.unraisable
        return {number: signal.signal(number, self.hear) for number in _SIGNALS}

    def end(self, handlers: Mapping[int, Any]) -> None:
        """Leave signals to the handlers that were there before."""
        if self._again:
            self._again.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._otherwise

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        swallowed, self._again = self._again is not None, None
        later = self.number is not None and not swallowed
        if (later and self.once) or (swallowed and self.raised):
            return
        self.number = self.number or number
        self.count += 1
        # Whoever presses Ctrl-C a second time does not want to wait any longer.
        if later or not self.holding:
            raise self.interrupt()

    def interrupt(self) -> KeyboardInterrupt:
        """The signal as the exception that is raised now."""
        self.raised = True
        return Terminated() if self.number == signal.SIGTERM else KeyboardInterrupt()

    def raise_waiting(self) -> None:
        """Raise a signal that came while signals were held back."""
        if self.number is not None and not self.raised and not self.holding and not self._again:
            raise self.interrupt()

    def unraisable(self, unraisable: UnraisableHookArgs) -> None:
        """Have the process hear a signal once more that was raised where nobody can catch it.

        That is while a finalizer or a callback of the garbage collection runs: Python would print
        the exception, and go on.
        """
        if self.number is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._otherwise(unraisable)
            return
        self.raised = False
        self._again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), self.number))
        self._again.daemon = True
        self._again.start()


_heard = _Heard(once=False)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turn SIGTERM into Terminated and SIGINT into KeyboardInterrupt inside the block."""
    global _heard
    if not _in_main_thread():
        yield
        return
    outer = _heard
    _heard = _Heard(once=False)
    handlers = _heard.begin()
    try:
        yield
    finally:
        _heard.end(handlers)
        _heard = outer


def handle_signals_once() -> None:
    """The same until the process ends, for one that may be told to stop more than once.

    The second signal must not cut short what the first one began to close.
    """
    global _heard
    _heard = _Heard(once=True)
    _heard.begin()


# Classes, not generators: a signal that comes while such a block ends would leave a generator
# suspended, and the count of blocks wrong.
class defer_signals:
    """Hold signals back until the block has ended; one that came is raised then."""

    def __enter__(self) -> None:
        self._state = _heard if _in_main_thread() else None
        if self._state:
            self._before = self._state.holding
            self._state.holding = self._before + 1

    def __exit__(self, *of_error: object) -> None:
        if self._state:
            self._state.holding = self._before
            self._state.raise_waiting()


class allow_signals:
    """Inside blocks that hold signals back: one that does not.

    A block in which a signal came ends with it, also where a library swallowed the exception, or
    turned it into another one.
    """

    def __enter__(self) -> None:
        self._state = _heard if _in_main_thread() else None
        if self._state:
            self._before, self._count = self._state.holding, self._state.count
            self._state.holding = 0
            try:
                self._state.raise_waiting()
            except KeyboardInterrupt:
                self._state.holding = self._before
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if not self._state:
            return
        self._state.holding = self._before
        if self._state.count != self._count and not isinstance(error, KeyboardInterrupt):
            raise self._state.interrupt() from error


def _in_main_thread() -> bool:
    """Whether signals come here."""
    return threading.current_thread() is threading.main_thread()
