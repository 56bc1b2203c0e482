"""Prefetch images in threads, within a bound on memory."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import numpy as np

from scenetrack.data.decoding import decoding_problem, open_image, resized, upright_rgb

# Bytes per pixel while an image is decoded: as stored, as RGB, and during rotation.
_BYTES_PER_PIXEL = 10


def read_ahead(
    paths: Iterable[str], size: int, *, threads: int, ahead: int, memory: int
) -> Generator[tuple[str, np.ndarray | str], None, None]:
    """Yield each path with its image resized to a square, or with the reason why it is unreadable.

    Threads decode while the caller works on earlier images; at most ``ahead`` decoded images wait
    for it. Close the generator to stop the threads early. Enter ``quiet_decoding`` around it.

    Args:
        paths: paths of the image files, consumed ``ahead`` of the images that are yielded.
        size: side S in pixels; the aspect ratio is not kept, the filter is that of ``load_images``.
        threads: number of decoding threads.
        ahead: largest number of images decoded ahead, at least 1.
        memory: bytes for the images being decoded; a larger image is decoded alone.

    Yields:
        The path, and either uint8 [S, S, 3], RGB, or a text that says why the file, which is
            missing, damaged or no image, cannot be read. The order is that of ``paths``.
    """
    budget = _MemoryBudget(memory)
    source = iter(paths)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting: deque[tuple[str, Future[np.ndarray | str]]] = deque()

        def submit(count: int) -> None:
            for path in islice(source, count):
                waiting.append((path, pool.submit(_read, path, size, budget)))

        submit(ahead)
        while waiting:
            path, future = waiting.popleft()
            result = future.result()
            submit(1)
            yield path, result
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: str, size: int, budget: _MemoryBudget) -> np.ndarray | str:
    # Broken bytes make Pillow's decoders raise almost anything, not OSError alone.
    try:
        # Opening a pipe without a writer would wait for ever, and nothing could stop it.
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            return "no regular file"
        with open(path, "rb") as file:
            image = open_image(file)
            with budget.reserved(_BYTES_PER_PIXEL * image.width * image.height):
                return resized(upright_rgb(image), size)
    except Exception as error:
        return decoding_problem(error)


class _MemoryBudget:
    """Bytes that threads share; a request for more than the total waits until all are free."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        size = min(size, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()
