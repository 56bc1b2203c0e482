"""Waiting for a store that another program has locked."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from scenetrack.errors import StoreError
from scenetrack.system import patience
from scenetrack.system.interrupts import defer_signals, handle_signals
from scenetrack.system.patience import hurried, patiently


class _Locked(Exception):
    pass


class _Store:
    """A store that is locked for its first calls."""

    def __init__(self, locked: int) -> None:
        self.locked = locked

    def read(self) -> str:
        self.locked -= 1
        if self.locked >= 0:
            raise _Locked
        return "read"


def _wait_for(store: _Store) -> str:
    return patiently(store.read, lambda error: isinstance(error, _Locked), "the store")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LONGEST_S": 0.3, "SAID_AFTER_S": 0.05, "PAUSE_S": 0.02}.items():
        monkeypatch.setattr(patience, name, seconds)


def test_a_wait_is_said_once_and_ends_when_the_store_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "scenetrack"):
        assert _wait_for(_Store(10)) == "read"
    first, second = caplog.messages
    assert first == "waiting for the store, which another program has locked"
    assert second.startswith("the store is free again after ")


def test_a_short_wait_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "scenetrack"):
        assert _wait_for(_Store(1)) == "read"
    assert caplog.messages == []


def test_a_wait_has_an_end_which_comes_sooner_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="the store was locked by another program for 0 s: wait"):
        _wait_for(_Store(10**6))
    monkeypatch.setattr(patience, "LONGEST_S", 10**6)
    monkeypatch.setattr(patience, "HURRIED_S", 0.1)
    with hurried(), pytest.raises(StoreError):
        _wait_for(_Store(10**6))


def test_another_error_is_not_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, lambda error: isinstance(error, _Locked), "the store")


def test_a_signal_ends_a_wait_where_signals_are_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_S", 60)
    started = time.monotonic()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with handle_signals(), pytest.raises(KeyboardInterrupt), defer_signals():
        _wait_for(_Store(10**6))
    assert time.monotonic() - started < 5
