"""Worker processes of a study: start, wait, stop."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, TextIO

from scenetrack.system import interrupts
from scenetrack.system.terminal import VisibleFormatter, escape_unprintable

logger = logging.getLogger(__name__)

# What workers say of themselves; what a stage says would come from all of them at once.
_HEARD = "scenetrack.tuning"


def run_processes(count: int, threads: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(*arguments)`` in ``count`` fresh processes, and wait until all have ended.

    Those that fail or are killed are told in a line each. When this process is interrupted they are
    terminated, and waited for while they close what they have open.

    Args:
        count: of the processes.
        threads: of each, for the libraries that count them at their start.
        work: a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=arguments) for _ in range(count)]
    try:
        with _environment("OMP_NUM_THREADS", str(threads)), _interrupts_held():
            for process in processes:
                process.start()
        for process in processes:
            process.join()
    finally:
        _stop(processes)
    for process in processes:
        if process.exitcode:
            logger.warning("a worker process ended with exit code %d", process.exitcode)


def become_worker(level: int) -> None:
    """Make this process a worker: it hears signals once, and ends when its parent does.

    Args:
        level: of logging, for what is said of trials.
    """
    interrupts.handle_signals_once()
    escape_unprintable()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Progress bars of several processes would overwrite each other.
    sys.stderr = _NoTerminal(sys.stderr)
    package = logging.getLogger("scenetrack")
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter())
    package.addHandler(handler)
    package.setLevel(max(level, logging.WARNING) if level == logging.INFO else level)
    logging.getLogger(_HEARD).setLevel(level)


class _NoTerminal:
    """A stream that passes for no terminal, so that progress bars stay away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(processes: Sequence[BaseProcess]) -> None:
    begun = [process for process in processes if process.pid is not None]
    for process in begun:
        if process.is_alive():
            process.terminate()
    for process in begun:
        process.join()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that start inside do not hear Ctrl-C until they ask for it, where that is possible.

    They would write a traceback each from the midst of their imports.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
