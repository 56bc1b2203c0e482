"""VLAD: sums of the residuals between descriptors and their nearest visual words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.encoders.bag_of_words import BagOfWords
from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.checks import check_regions
from scenetrack.encoders.fixed_point import grid_in_graph, steps_per_unit, to_grid
from scenetrack.encoders.normalisation import (
    signed_power,
    signed_power_in_graph,
    unit_length,
    unit_length_in_graph,
)
from scenetrack.encoders.region_partition import Cells, cells_of, sums_by_group
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays

# A word has at most 2**24 steps, so the sum of 2**26 descriptors 8 times as long is still exact.
_BITS = 24

_SAVED = {"codebook": "numbers K D", "intra_normalisation": "flag", "power": "numbers"}


class Vlad(LocalEncoder):
    """Vector of locally aggregated descriptors: Jegou, Douze, Schmid and Perez, "Aggregating local
    descriptors into a compact image representation", 2010.

    The encoding holds for each word c_k the sum of x_i - c_k over the descriptors x_i nearest to it
    (their equation 1). Each sum is scaled to unit length (intra-normalisation: Arandjelovic and
    Zisserman, "All about VLAD", 2013, section 3.1), each value is replaced by its signed power, and
    the whole scaled to unit length. The sums are exact, so that a descriptor equal to a word leaves
    zeros and not rounding errors, which would be scaled to unit length as well.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        intra_normalisation: whether each word's sum is scaled to unit length.
        power: exponent of the values, above 0; 1 for no change.

    Attributes:
        words_: bag of words that holds the codebook.
    """

    about = ENCODERS["vlad"]

    def __init__(
        self,
        codebook_size: int = 256,
        random_state: int = 0,
        intra_normalisation: bool = True,
        power: float = 0.5,
    ) -> None:
        self.codebook_size = codebook_size
        self.random_state = random_state
        self.intra_normalisation = intra_normalisation
        self.power = power

    @property
    def width(self) -> int:
        """Number K D of values of an encoding."""
        return int(self.words_.codebook_.size)

    @property
    def preparation(self) -> str:
        """Preparation for SVMs: none, because encodings have length 1 already."""
        return "none"

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn the visual words from a sample of ``descriptors`` float32 [N, D], N >= K.

        Raises:
            InputError: fewer descriptors than words, values not finite, or a power not above 0.
        """
        _check_power(self.power)
        self.words_ = BagOfWords(self.codebook_size, random_state=self.random_state)
        self.words_.fit(descriptors)
        return self

    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Encode regions of one image.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n].

        Returns:
            float32 [R, K D], each of length 1; zeros where a region is empty or all of its
            descriptors equal visual words.

        Raises:
            InputError: D differs from that at fit, values are not finite, or regions do not fit.
        """
        check_regions(regions, len(rows))
        cells = cells_of(regions)
        scale, codebook = self._grid()
        rows = np.asarray(rows, np.float32)[cells.order]
        groups = self._groups(cells, self.words_.assign(rows))
        count = len(cells.sizes) * len(codebook)
        sums = sums_by_group(to_grid(rows, scale), groups, count).reshape(-1, *codebook.shape)
        counts = np.bincount(groups, minlength=count).reshape(-1, len(codebook), 1)
        residuals = cells.total(sums - counts * codebook)
        if self.intra_normalisation:
            residuals = unit_length(residuals)
        powered = signed_power(residuals.reshape(len(residuals), -1), self.power)
        return unit_length(powered).astype(np.float32)

    def _groups(self, cells: Cells, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return cell and word of each sorted descriptor as one number."""
        return cells.firsts(len(self.words_.codebook_)) + words

    def _grid(self) -> tuple[float, NDArray[np.float64]]:
        """Return the steps per unit, and the words [K, D] in steps."""
        codebook = self.words_.codebook_
        longest = float(np.sqrt(np.einsum("kd,kd->k", codebook, codebook).max()))
        scale = steps_per_unit(longest, _BITS)
        return scale, to_grid(codebook, scale)

    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """Add ``pool`` to the graph: rows float32 [n, D] to float32 [R, K D]."""
        cells = cells_of(regions)
        with builder.scope("vlad"):
            residuals = self._residuals_in_graph(builder, rows, cells)
            if self.intra_normalisation:
                residuals = unit_length_in_graph(builder, residuals)
            flat = builder.node("Flatten", residuals, axis=1)
            powered = signed_power_in_graph(builder, flat, self.power)
            unit = unit_length_in_graph(builder, powered)
            return builder.node("Cast", unit, to=TensorProto.FLOAT, name="encoding")

    def _residuals_in_graph(self, builder: GraphBuilder, rows: str, cells: Cells) -> str:
        """Add the sums of residuals, float64 [R, K, D], to the graph."""
        scale, codebook = self._grid()
        shape = (len(cells.sizes), *codebook.shape)
        count, width = shape[0] * shape[1], shape[2]
        rows = cells.sort_in_graph(builder, rows)
        words = self.words_.assign_in_graph(builder, rows)
        firsts = builder.constant("firsts", cells.firsts(len(codebook)))
        groups = builder.node("Add", words, firsts, name="groups")
        last = builder.constant("last", np.array([1]))
        spread = builder.constant("spread", np.array([len(cells.order), width + 1]))
        indices = builder.node("Expand", builder.node("Unsqueeze", groups, last), spread)
        steps = grid_in_graph(builder, rows, scale)
        # A column of ones, so that one pass counts the descriptors as well.
        pads = builder.constant("pads", np.array([0, 0, 0, 1]))
        counted = builder.node("Pad", steps, pads, builder.constant("one", np.array(1.0)))
        none = builder.constant("none", np.zeros((count, width + 1)))
        added = builder.node("ScatterElements", none, indices, counted, axis=0, reduction="add")
        parts = builder.constant("parts", np.array([width, 1]))
        sums, counts = builder.node("Split", added, parts, outputs=2, axis=1)
        tiled = builder.constant("codebook", np.tile(codebook, (shape[0], 1)))
        residuals = builder.node("Sub", sums, builder.node("Mul", counts, tiled))
        target = builder.constant("target", np.array(shape))
        return cells.total_in_graph(
            builder, builder.node("Reshape", residuals, target), codebook.shape
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return settings and learnt values as arrays without objects."""
        return {
            "codebook": self.words_.codebook_,
            "intra_normalisation": np.array(self.intra_normalisation),
            "power": np.array(self.power, np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder whose ``to_arrays`` gave ``arrays``; its encodings are the same.

        Raises:
            InputError: an array is missing or has another type, or the power is not above 0.
        """
        saved = checked_arrays(arrays, _SAVED, cls.about.title)
        encoder = cls(
            len(saved["codebook"]),
            intra_normalisation=bool(saved["intra_normalisation"]),
            power=float(saved["power"]),
        )
        _check_power(encoder.power)
        encoder.words_ = BagOfWords.from_arrays({"codebook": saved["codebook"]})
        return encoder


def _check_power(power: float) -> None:
    # Written so that NaN fails.
    if not 0 < power < float("inf"):
        raise InputError(f"a power above 0 is required, such as 0.5. Received: {power}")
