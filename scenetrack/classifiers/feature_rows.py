"""Feature vectors and what is done to them before kernels compare them, a part at a time.

A Fisher vector with a pyramid has tens of thousands of values: the features stay as they came,
float32 as a rule, and only the part in work is made ready in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenetrack.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

# Of histograms of sum 1, of plain descriptors, of what is already normalised.
PREPARATIONS = ("square_root", "standardise", "none")

# What is made ready at a time, in float64.
_PART_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class Rows:
    """Features with their preparation.

    Attributes:
        values: float32 or float64 [N, D], as they came.
        preparation: one of ``PREPARATIONS``.
        mean, scale: float64 [D], of ``standardise``: taken off and divided by.
            Without it [1] each, 0 and 1.
    """

    values: NDArray[np.floating[Any]]
    preparation: str = "none"
    mean: Floats = field(default_factory=lambda: np.zeros(1))
    scale: Floats = field(default_factory=lambda: np.ones(1))

    @classmethod
    def standardised(cls, values: NDArray[np.floating[Any]], preparation: str) -> Self:
        """Wrap ``values`` with the mean and scale that ``preparation`` learns from them."""
        if preparation != "standardise":
            return cls(values, preparation)
        return cls(values, preparation, *_mean_and_scale(values))

    def like(self, values: NDArray[np.floating[Any]]) -> Rows:
        """Wrap other values [N, D] under the same preparation."""
        return Rows(values, self.preparation, self.mean, self.scale)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """D, the number of values of a row."""
        return int(self.values.shape[1])

    def ready(self, rows: slice, columns: slice = slice(None)) -> Floats:
        """Prepare the rows and columns named: float64 [n, d]."""
        part = np.asarray(self.values[rows, columns], dtype=np.float64, order="C")
        if self.preparation == "square_root":
            return np.sqrt(part)
        if self.preparation != "standardise":
            return part
        return np.asarray((part - self.mean[columns]) / self.scale[columns])

    def row_parts(self) -> Iterator[tuple[slice, Floats]]:
        """Yield all rows in order, prepared, as many at a time as are small in memory."""
        for part in parts(len(self), _PART_BYTES // (8 * self.width)):
            yield part, self.ready(part)


def column_parts(left: Rows, right: Rows) -> Iterator[tuple[Floats, Floats]]:
    """Yield the same columns of both, prepared, a few at a time; equal ones where both are one."""
    count = len(left) if left is right else len(left) + len(right)
    everything = slice(None)
    for columns in parts(left.width, _PART_BYTES // (8 * count)):
        ready = left.ready(everything, columns)
        yield ready, ready if left is right else right.ready(everything, columns)


def parts(total: int, largest: int) -> Iterator[slice]:
    """Yield slices of at most ``largest``, but of one at least, that cover ``range(total)``."""
    step = max(1, largest)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def checked_features(features: ArrayLike) -> NDArray[np.floating[Any]]:
    """Check ``features`` as [N, D]: float32 as they are, all else as float64.

    Raises:
        InputError: another shape, or values not finite.
    """
    given = np.asarray(features)
    values = given if given.dtype == np.float32 else given.astype(np.float64, copy=False)
    if values.ndim != 2 or not values.size:
        raise InputError(f"features must be an array [N, D] of N, D > 0. Received: {values.shape}")
    rows = _PART_BYTES // (8 * values.shape[1])
    if not all(np.isfinite(values[part]).all() for part in parts(len(values), rows)):
        raise InputError("features must be finite. Received: NaN or infinity")
    return values


def _mean_and_scale(values: NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
    """Return float64 [D] each, under which rows have mean 0 and a mean squared length of 1."""
    plain = Rows(values)
    mean, deviation = np.empty(plain.width), np.empty(plain.width)
    for columns in parts(plain.width, _PART_BYTES // (8 * len(values))):
        part = plain.ready(slice(None), columns)
        mean[columns], deviation[columns] = part.mean(axis=0), part.std(axis=0)
    # Unit length, and not unit variance alone, so that one C grid serves every D.
    return mean, np.where(deviation > 0, deviation, 1.0) * np.sqrt(plain.width)
