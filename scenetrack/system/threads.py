"""Parallel work in threads, one for each processor of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from scenetrack.system.machine import available_cpus

_Result = TypeVar("_Result")


def in_threads(work: Callable[[int], _Result], count: int) -> list[_Result]:
    """Return ``work(index)`` for each index below ``count``, in order, computed in threads.

    BLAS then uses one thread for each matrix product: the products are too small to be divided.
    """
    workers = min(available_cpus(), count)
    if workers < 2:
        return [work(index) for index in range(count)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(count)))
