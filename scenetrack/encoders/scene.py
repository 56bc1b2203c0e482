"""From the raw local descriptors of an image to the vector that a classifier is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.checks import check_arrays
from scenetrack.encoders.fisher import FisherVector
from scenetrack.encoders.pca import DescriptorPca
from scenetrack.encoders.pyramid import SpatialPyramid
from scenetrack.encoders.vlad import Vlad
from scenetrack.encoders.words import BagOfWords
from scenetrack.errors import InputError
from scenetrack.graph import GraphBuilder

ENCODERS: Mapping[str, type[LocalEncoder]] = {
    kind.name: kind for kind in (BagOfWords, Vlad, FisherVector)
}

_PCA, _ENCODER = "pca.", "encoder."
_RANKS = {"encoder": 0, "levels": 1, "positions": 2}


@dataclass(frozen=True)
class SceneEncoder:
    """What turns an image's descriptors into one vector, as it was learnt.

    Attributes:
        encoder: of the descriptors of a region.
        levels: of the spatial pyramid, such as ("1x1", "2x2"), rows x columns; "1x1" is the image.
        positions: float32 [n, 2], centres (y, x) of an image's descriptors relative to it, in
            [0, 1].
        pca: what descriptors are reduced by first; None where they are not.
    """

    encoder: LocalEncoder
    levels: tuple[str, ...]
    positions: NDArray[np.float32]
    pca: DescriptorPca | None

    @cached_property
    def pyramid(self) -> SpatialPyramid:
        """The encoder over all regions."""
        return SpatialPyramid(self.encoder, self.levels, self.positions)

    @property
    def preparation(self) -> str:
        """One of ``classifiers.PREPARATIONS``: what an SVM does with the encoding first."""
        return self.encoder.preparation

    @property
    def explains(self) -> bool:
        """Whether a patch's part in a score can be told: it counts for one word of the image."""
        return isinstance(self.encoder, BagOfWords) and self.levels == ("1x1",)

    def project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [..., D] after PCA, float32 [..., d]."""
        return descriptors if self.pca is None else self.pca.transform(descriptors)

    def encode(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [N, n, D] as features float32 [N, W].

        Raises:
            InputError: another n or D than at fit, no images, values not finite.
        """
        return self.pyramid.transform(self.project(descriptors))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> tuple[str, str]:
        """The twin of ``encode``, one image after the other.

        Args:
            descriptors: float32 [N, n, D].

        Returns:
            Features, float32 [N, W], and where the encoder ``explains`` the words of the
            descriptors, int64 [N, n], else "".
        """

        def encode(image: GraphBuilder, rows: str) -> tuple[str, ...]:
            projected = rows if self.pca is None else self.pca.to_graph(image, rows)
            if not (isinstance(self.encoder, BagOfWords) and self.explains):
                return (self.pyramid.to_graph(image, projected),)
            words = self.encoder.assign_in_graph(image, projected)
            pooled = self.encoder.count_in_graph(image, words, self.pyramid.regions)
            return self.pyramid.join_in_graph(image, pooled), words

        features, *words = builder.each([descriptors], encode, [np.float32])
        return features, words[0] if words else ""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that was set and learnt as arrays without objects, for ``numpy.savez``."""
        arrays: dict[str, NDArray[Any]] = {
            "encoder": np.array(self.encoder.name),
            "levels": np.array(self.levels),
            "positions": self.positions,
        }
        arrays |= {_ENCODER + name: array for name, array in self.encoder.to_arrays().items()}
        if self.pca is not None:
            arrays |= {_PCA + name: array for name, array in self.pca.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The encoder whose ``to_arrays`` gave ``arrays``; its features are the same.

        Raises:
            InputError: an array is missing, has another number of axes, or an encoder is unknown.
        """
        check_arrays(arrays, _RANKS, "encoder")
        name = str(arrays["encoder"])
        if name not in ENCODERS:
            raise InputError(
                f"a saved encoder must be one of: {', '.join(ENCODERS)}. Received: {name!r}; "
                "train it again with this version"
            )
        pca = _under(arrays, _PCA)
        return cls(
            encoder=ENCODERS[name].from_arrays(_under(arrays, _ENCODER)),
            levels=tuple(map(str, arrays["levels"])),
            positions=np.asarray(arrays["positions"], np.float32),
            pca=DescriptorPca.from_arrays(pca) if pca else None,
        )


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
