"""Ctrl-C and SIGTERM as exceptions that end the work, wherever they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from scenetrack.errors import Terminated

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Until a callback that swallowed an interrupt has returned.
_AGAIN_S = 0.05


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into Terminated, so that open runs are closed on the way out."""
    try:
        previous = signal.signal(signal.SIGTERM, _raise_terminated)
    except ValueError:  # Python allows handlers in the main thread only.
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = again_if_swallowed(_as_it_was)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, previous)


def again_if_swallowed(
    prepare: Callable[[signal.Signals], None],
) -> Callable[[UnraisableHookArgs], None]:
    """A ``sys.unraisablehook`` that sends the process a swallowed interrupt once more.

    An interrupt that comes while a finalizer or a callback of the garbage collection runs is
    raised there, where nobody can catch it: Python would print it, and go on.

    Args:
        prepare: is told of the signal before it comes again.
    """
    otherwise = sys.unraisablehook

    def hook(unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            otherwise(unraisable)
            return
        terminated = issubclass(unraisable.exc_type, Terminated)
        number = signal.SIGTERM if terminated else signal.SIGINT
        prepare(number)
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    return hook


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _as_it_was(number: signal.Signals) -> None:
    """The same handler hears it again."""
