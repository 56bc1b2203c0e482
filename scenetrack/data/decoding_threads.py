"""Threads that decode image files, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

from tqdm import tqdm

from scenetrack.data.decoding import quiet_decoding
from scenetrack.system.machine import available_cpus

_BATCH = 1024

Item = TypeVar("Item")
Result = TypeVar("Result")


def progress_bar(total: int, description: str) -> tqdm[NoReturn]:
    """Return a progress bar that counts images; it shows on a terminal only."""
    return tqdm(total=total, desc=description, unit="img", disable=None)


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: tqdm[NoReturn]
) -> list[Result]:
    """Return ``work(item)`` for each item, in order; Pillow releases the GIL while it decodes."""
    results: list[Result] = []
    threads = min(available_cpus(), 16)
    with quiet_decoding(), ThreadPoolExecutor(threads) as pool:
        # In batches, so that Ctrl-C does not wait for all submitted items.
        for start in range(0, len(items), _BATCH):
            for result in pool.map(work, items[start : start + _BATCH]):
                results.append(result)
                progress.update()
    return results
