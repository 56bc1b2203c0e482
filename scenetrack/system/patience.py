"""Waiting for a store that another program has locked: said once, bounded, ended by a signal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from scenetrack.errors import StoreError
from scenetrack.system.interrupts import allow_signals

logger = logging.getLogger(__name__)

# Seconds: how long a store may be locked, after which a wait is said, and between two tries.
LONGEST_S, SAID_AFTER_S, PAUSE_S = 300.0, 5.0, 0.25
# What is done last in a process that fails must not keep its user waiting once more.
HURRIED_S = 10.0
# Seconds that a database's own library waits in one try: no signal is heard in the meantime.
TRY_S = 1.0

_longest: ContextVar[float | None] = ContextVar("longest", default=None)
_Result = TypeVar("_Result")


def patiently(
    call: Callable[[], _Result], is_locked: Callable[[Exception], bool], what: str
) -> _Result:
    """Return ``call()``, which is tried again while the store that it uses is locked.

    A signal ends the wait, even where signals are deferred.

    Args:
        call: has no effect when it raises an error of a locked store.
        is_locked: whether an error says that another program has locked the store.
        what: name of the store, for messages.

    Raises:
        StoreError: the store was locked for 5 minutes, or for 10 seconds inside ``hurried``.
    """
    bound = _longest.get() or LONGEST_S
    started = time.monotonic()
    said = False
    while True:
        try:
            result = call()
        except Exception as error:
            if not is_locked(error):
                raise
            waited = time.monotonic() - started
            if waited > bound:
                raise StoreError(
                    f"{what} was locked by another program for {waited:.0f} s: wait for that "
                    "program or end it, then start the same command again"
                ) from error
        else:
            if said:
                logger.info("%s is free again after %.0f s", what, time.monotonic() - started)
            return result
        if waited > SAID_AFTER_S and not said:
            logger.warning("waiting for %s, which another program has locked", what)
            said = True
        with allow_signals():
            time.sleep(PAUSE_S)


@contextmanager
def hurried() -> Iterator[None]:
    """Wait for locked stores for 10 seconds only inside the block."""
    token = _longest.set(HURRIED_S)
    try:
        yield
    finally:
        _longest.reset(token)
