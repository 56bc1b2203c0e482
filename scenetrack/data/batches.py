"""Batches of a training epoch."""

from __future__ import annotations

from collections.abc import Iterator


def batch_slices(count: int, batch_size: int) -> Iterator[slice]:
    """Yield slices of ``batch_size`` that cover ``range(count)``; the last one may be smaller.

    A single sample left over joins the batch before: alone it has a variance of 0, by which batch
    normalisation would divide.
    """
    batches = batch_count(count, batch_size)
    for batch in range(batches):
        last = batch == batches - 1
        yield slice(batch * batch_size, count if last else (batch + 1) * batch_size)


def batch_count(count: int, batch_size: int) -> int:
    """Return the number of ``batch_slices``."""
    whole, rest = divmod(count, batch_size)
    return whole + (rest > 1 or (rest == 1 and (whole == 0 or batch_size == 1)))
