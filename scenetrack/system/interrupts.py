"""Ctrl-C and SIGTERM as exceptions, deferred while a store is written to.

A signal handler may raise its exception anywhere: inside a database's commit, which turns it into
an error of its own, or inside a callback, which swallows it. So signals are deferred while a store
is written to, and a block that was interrupted always ends with the interrupt, whatever happened
to the first exception. ``native_calls`` ends what a library is busy with.
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
from scenetrack.system.native_calls import SIGNALS, SignalWatch

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Delay in seconds, for a callback that swallowed an interrupt to return before the next one.
_RESEND_S = 0.05


class _SignalState:
    """The signals that this process has received; they reach the main thread only.

    Attributes:
        number: number of the first signal, or None before there is one.
        count: number of signals received.
        raised: whether an exception has been raised for them.
        once: whether signals after the first are ignored.
        deferring: number of nested blocks that defer signals.
    """

    def __init__(self, *, once: bool) -> None:
        self.number: int | None = None
        self.count = 0
        self.raised = False
        self.once = once
        self.deferring = 0
        self._resend: threading.Timer | None = None
        self._outer_hook = sys.unraisablehook
        self._watch: SignalWatch | None = None

    def begin(self) -> dict[int, Any]:
        """Install the handlers and return the previous ones by signal number."""
        sys.unraisablehook = self.unraisable
        self._watch = SignalWatch()
        self._watch.start()
        return {number: signal.signal(number, self.receive) for number in SIGNALS}

    def end(self, handlers: Mapping[int, Any]) -> None:
        """Restore the previous handlers."""
        if self._resend:
            self._resend.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if self._watch:
            self._watch.end()
        sys.unraisablehook = self._outer_hook

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        swallowed, self._resend = self._resend is not None, None
        later = self.number is not None and not swallowed
        if (later and self.once) or (swallowed and self.raised):
            return
        self.number = self.number or number
        self.count += 1
        # A user who presses Ctrl-C a second time does not want to wait any longer.
        if later or not self.deferring:
            raise self.interrupt()

    def interrupt(self) -> KeyboardInterrupt:
        """Return the exception of the first signal and mark it as raised."""
        self.raised = True
        return Terminated() if self.number == signal.SIGTERM else KeyboardInterrupt()

    def raise_deferred(self) -> None:
        """Raise the exception of a signal that was deferred."""
        if self.number is not None and not self.raised and not self.deferring and not self._resend:
            raise self.interrupt()

    def unraisable(self, unraisable: UnraisableHookArgs) -> None:
        """Send a signal again whose exception was raised where no code can catch it.

        This happens in a finalizer or a callback of the garbage collector: Python would print the
        exception and go on.
        """
        if self.number is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._outer_hook(unraisable)
            return
        self.raised = False
        self._resend = threading.Timer(_RESEND_S, os.kill, (os.getpid(), self.number))
        self._resend.daemon = True
        self._resend.start()


_state = _SignalState(once=False)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turn SIGTERM into Terminated and SIGINT into KeyboardInterrupt inside the block."""
    global _state
    if not _in_main_thread():
        yield
        return
    outer = _state
    _state = _SignalState(once=False)
    handlers = _state.begin()
    try:
        yield
    finally:
        _state.end(handlers)
        _state = outer


def handle_signals_once() -> None:
    """Handle the first signal as ``handle_signals`` does and ignore the rest, until process exit.

    For a process that may be asked to stop more than once: the second signal must not interrupt
    the clean-up that the first one started.
    """
    global _state
    _state = _SignalState(once=True)
    _state.begin()


# Classes, not generators: a signal that arrives while such a block ends would leave a generator
# suspended and the count of blocks wrong.
class defer_signals:
    """Defer signals until the block has ended; one that arrived is raised then."""

    def __enter__(self) -> None:
        self._state = _state if _in_main_thread() else None
        if self._state:
            self._before = self._state.deferring
            self._state.deferring = self._before + 1

    def __exit__(self, *of_error: object) -> None:
        if self._state:
            self._state.deferring = self._before
            self._state.raise_deferred()


class allow_signals:
    """Do not defer signals in this block, even inside blocks that do.

    If a signal arrives in the block, the block ends with its exception, even if a library
    swallowed that exception or turned it into another one.
    """

    def __enter__(self) -> None:
        self._state = _state if _in_main_thread() else None
        if self._state:
            self._before, self._count = self._state.deferring, self._state.count
            self._state.deferring = 0
            try:
                self._state.raise_deferred()
            except KeyboardInterrupt:
                self._state.deferring = self._before
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if not self._state:
            return
        self._state.deferring = self._before
        if self._state.count != self._count and not isinstance(error, KeyboardInterrupt):
            raise self._state.interrupt() from error


def _in_main_thread() -> bool:
    """Return whether this is the main thread, the only one that signals reach."""
    return threading.current_thread() is threading.main_thread()
