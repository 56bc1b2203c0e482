"""Long calls into libraries, which a signal ends although they do not return to Python.

Python raises the exception of a signal in its main thread, and not before the call that it is in
has returned: a library that computes for hours is not interrupted, nor is a thread that waits for
one. So a thread of our own hears of signals. It asks the calls to stop, and ends the process if
one does not.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds after a signal, or after its own beginning, in which a call must end. An operator that
# works on one batch ends in much less.
GRACE_S = 5.0
_POLL_S = 0.05
_ENDINGS = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}

_guard = threading.Lock()
_active: dict[native_call, float] = {}  # when each began, by time.monotonic()
_stopping = False


class native_call:
    """Tell, inside the block, that this thread is in a library.

    Args:
        stop: asks the library to return soon, and may be called from another thread, more than
            once; None where there is no way to ask.
    """

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self._stop = stop

    def __enter__(self) -> Self:
        with _guard:
            _active[self] = time.monotonic()
        if _stopping:
            self.stop()
        return self

    def __exit__(self, *of_error: object) -> None:
        with _guard:
            del _active[self]

    def stop(self) -> None:
        """Ask the library to return soon."""
        if self._stop:
            self._stop()


class SignalWatch:
    """A thread that stops native calls once this process receives SIGINT or SIGTERM.

    The interpreter writes the number of a signal into a socket at the moment of its arrival, in
    whatever library its threads are.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)

    def start(self) -> None:
        """Begin to watch; call it in the main thread."""
        self._outer = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        global _stopping
        signal.set_wakeup_fd(self._outer)
        self._ended.set()
        self._writer.close()
        self._thread.join()
        self._reader.close()
        _stopping = False

    def _watch(self) -> None:
        global _stopping
        while received := self._reader.recv(64):
            number = next((each for each in received if each in SIGNALS), None)
            if number is not None:
                _stopping = True
                self._stop_calls(signal.Signals(number))
                return

    def _stop_calls(self, number: signal.Signals) -> None:
        began = time.monotonic()
        for call in list(_calls()):
            call.stop()
        while not self._ended.wait(_POLL_S):
            latest = time.monotonic() - GRACE_S
            if any(max(since, began) < latest for since in _calls().values()):
                # Nothing that Python does at its end would come to pass: it waits for its threads.
                os.write(2, _ENDINGS[number])
                os._exit(128 + number)


def _calls() -> dict[native_call, float]:
    with _guard:
        return dict(_active)
