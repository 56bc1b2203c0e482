"""Work shared by threads, one for each processor of this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from scenetrack.system.machine import available_cpus

_Result = TypeVar("_Result")


def in_threads(work: Callable[[int], _Result], count: int) -> list[_Result]:
    """``work`` of each number below ``count``, in order, one thread for each processor.

    Products of matrices then take one thread each: they are too small to be cut further.
    """
    workers = min(available_cpus(), count)
    if workers < 2:
        return [work(index) for index in range(count)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(count)))
