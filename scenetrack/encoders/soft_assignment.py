"""Soft assignment: a descriptor counts for its nearest visual words, with more for nearer ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenetrack.encoders.codebook import Codebook
from scenetrack.graphs.builder import GraphBuilder

# The best number of neighbours in the paper's figure 4, on data sets like ours.
_NEIGHBOURS = 5
# Enough for a mean; the distances of so many take a few seconds.
_SAMPLE = 20_000


@dataclass(frozen=True, eq=False)
class SoftAssignment:
    """Localised soft assignment: Liu, Wang and Liu, "In defense of soft-assignment coding", 2011,
    equations 8 and 9.

    The share of word c among the 5 nearest ones is exp(-b |x - c|^2) over their sum. All other
    words, whose distances mean little in many dimensions, get no share.

    Attributes:
        codebook: the visual words.
        sharpness: factor b, per squared unit of a descriptor; see ``learn_sharpness``.
    """

    codebook: Codebook
    sharpness: float

    def assign(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Assign rows float32 [n, D] to their nearest words, nearest first.

        Returns:
            Words int64 [n, m], m = 5 or all words if fewer, and their shares float64 [n, m],
            each row summing to 1.
        """
        near, farther = _nearest(self.codebook, rows)
        shares = np.exp(-self._per_step * farther)
        return near, shares / shares.sum(axis=1, keepdims=True)

    def assign_in_graph(self, builder: GraphBuilder, rows: str) -> tuple[str, str]:
        """Add ``assign`` to the graph: float32 [n, D] to int64 [n, m] and float64 [n, m]."""
        distances = self.codebook.distances_in_graph(builder, rows)
        count = builder.constant("neighbours", np.array([_count(self.codebook)], np.int64))
        found, near = builder.node("TopK", distances, count, outputs=2, axis=1, largest=0)
        axis = builder.constant("axis", np.array([1], np.int64))
        farther = builder.node("Sub", found, builder.node("ReduceMin", found, axis))
        falls = builder.constant("sharpness", np.array(-self._per_step))
        shares = builder.node("Exp", builder.node("Mul", farther, falls))
        return near, builder.node("Div", shares, builder.node("ReduceSum", shares, axis))

    @property
    def _per_step(self) -> float:
        """The sharpness per squared grid step."""
        return self.sharpness / self.codebook.scale**2


def learn_sharpness(codebook: Codebook, rows: NDArray[np.float32]) -> float:
    """Return the sharpness at which the shares of the neighbours fall by e on average.

    It is 1 over the mean of |x - c|^2 - |x - c0|^2 over the further neighbours c, where c0 is the
    nearest word, so that it adapts to the scale of the descriptors. It is 0, for equal shares, if
    all neighbours are equally near.

    Args:
        rows: float32 [N, D], a sample; at most the first 20,000 are used.
    """
    _, farther = _nearest(codebook, rows[:_SAMPLE])
    mean = float(farther[:, 1:].mean()) if farther.shape[1] > 1 else 0.0
    return codebook.scale**2 / mean if mean else 0.0


def _count(codebook: Codebook) -> int:
    return min(_NEIGHBOURS, len(codebook.words))


def _nearest(
    codebook: Codebook, rows: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest words int64 [n, m], the first of equally near ones first, and by how much
    farther than the first they are, in squared grid steps, float64 [n, m].
    """
    count = _count(codebook)
    near = np.empty((len(rows), count), np.int64)
    found = np.empty((len(rows), count))
    for part in codebook.parts(len(rows)):
        distances = codebook.distances(rows[part])
        all_rows = np.arange(len(distances))
        for index in range(count):
            nearest = distances.argmin(axis=1)
            near[part, index], found[part, index] = nearest, distances[all_rows, nearest]
            distances[all_rows, nearest] = np.inf
    return near, found - found[:, :1]
