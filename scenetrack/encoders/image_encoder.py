"""Encoding of an image: root, PCA, position, encoder and pyramid, from descriptors to features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.hellinger_and_position import (
    hellinger_root,
    hellinger_root_in_graph,
    spatial_coordinates,
)
from scenetrack.encoders.pca import DescriptorPca
from scenetrack.encoders.pyramid import SpatialPyramid
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays
from scenetrack.system.threads import in_threads

_BY_TITLE = {encoder.title: encoder for encoder in ENCODERS.values()}
_PCA, _ENCODER = "pca.", "encoder."
_SAVED = {
    "encoder": "text",
    "levels": "text L",
    "positions": "numbers n 2",
    "square_root": "flag",
    "position_scale": "numbers",
}
_AT_ONCE = 50_000  # descriptors of a sample that are projected together
# Positions that lie evenly over the image vary by 1/12 in y and in x.
_POSITION_VARIANCE = 1 / 6


@dataclass(frozen=True)
class ImageEncoder:
    """The learnt encoding of an image's descriptors as one vector.

    Attributes:
        encoder: encoder of the descriptors of a region.
        levels: levels of the pyramid, such as ("1x1", "2x2"), rows x columns; "1x1" is the image.
        positions: float32 [n, 2], positions (y, x) of the descriptors' centres relative to the
            image size, in [0, 1].
        pca: PCA of the descriptors; None for no PCA.
        square_root: whether descriptors, which are then not negative, become square roots of
            their L1-normalised values first: Arandjelovic and Zisserman, "Three things everyone
            should know to improve object retrieval", 2012, section 3.
        position_scale: factor of (y, x) - 0.5, which is appended to the reduced descriptor, in the
            descriptor's units (Sanchez, Perronnin and de Campos, "Modeling the spatial layout of
            images beyond spatial pyramids", 2012, section 3); 0: nothing is appended.
    """

    encoder: LocalEncoder
    levels: tuple[str, ...]
    positions: NDArray[np.float32]
    pca: DescriptorPca | None = None
    square_root: bool = False
    position_scale: float = 0.0

    @classmethod
    def learn(
        cls,
        values: NDArray[Any],
        sample_positions: NDArray[np.float32],
        encoder: LocalEncoder,
        *,
        levels: tuple[str, ...],
        positions: NDArray[np.float32],
        pca: int,
        square_root: bool,
        position_weight: float,
    ) -> Self:
        """Fit PCA and encoder to a sample of training descriptors.

        Only ``encoder`` uses random numbers, from its own seed.

        Args:
            values: [M, D] of any dtype, the sample; a float32 [M, d] projection is held besides.
            sample_positions: float32 [M, 2], positions of the sample, as ``positions``.
            encoder: encoder to fit.
            levels: as the attribute.
            positions: as the attribute.
            pca: dimensions to keep, 0 for all.
            square_root: as the attribute.
            position_weight: 0 for none, or the weight of distances between positions relative to
                distances between descriptors: at 1 the positions of a whole image vary as much as
                the sample's reduced descriptors, whatever their number of values and their unit.

        Raises:
            InputError: the sample is too small, or its values are not finite or, for
                ``square_root``, negative.
        """
        plain = cls(encoder, tuple(levels), positions, None, square_root)
        if pca:
            plain = replace(
                plain, pca=DescriptorPca(pca).fit(hellinger_root(values) if square_root else values)
            )
        rows = plain._project_parts(values, sample_positions)
        scale = 0.0
        if position_weight:
            # Descriptors that are all equal have no unit of their own.
            spread = float(rows.var(axis=0, dtype=np.float64).sum()) or 1.0
            scale = position_weight * np.sqrt(spread / _POSITION_VARIANCE)
            rows = np.hstack([rows, spatial_coordinates(sample_positions, scale)])
        encoder.fit(rows)
        encoder.choose_arithmetic(rows)
        return replace(plain, position_scale=scale)

    def learn_idf(self, batches: Iterable[NDArray[Any]]) -> Self:
        """Learn the weights of visual words from all training images, if the encoder has tf-idf.

        Args:
            batches: descriptors [N, n, D] of one batch of images after another.
        """
        if self.encoder.learns_occurrences:
            self.encoder.learn_occurrences(
                self.project(image) for batch in batches for image in batch
            )
        return self

    @cached_property
    def pyramid(self) -> SpatialPyramid:
        """The spatial pyramid of the encoder."""
        return SpatialPyramid(self.encoder, self.levels, self.positions)

    @cached_property
    def _pooling(self) -> tuple[NDArray[np.bool_], np.float32]:
        return self.pyramid.regions, self.pyramid.share

    @property
    def preparation(self) -> str:
        """Preparation of encodings for SVMs, one of ``feature_rows.PREPARATIONS``."""
        return self.encoder.preparation

    @property
    def explains(self) -> bool:
        """Whether scores can be attributed to patches: each counts for one visual word."""
        return self.encoder.explains and self.levels == ("1x1",)

    def project(
        self, descriptors: NDArray[Any], positions: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return descriptors as the encoder takes them: root, PCA and position applied.

        Args:
            descriptors: [..., D].
            positions: float32 [..., 2]; None: descriptors are [..., n, D], of whole images.

        Returns:
            float32 [..., d], or [..., d + 2] with the position appended.

        Raises:
            InputError: D or n differs from that at fit, or values to be rooted are negative.
        """
        rows = hellinger_root(descriptors) if self.square_root else np.asarray(descriptors)
        rows = np.asarray(rows, np.float32) if self.pca is None else self.pca.transform(rows)
        if self.position_scale:
            positions = self.positions if positions is None else positions
            offsets = spatial_coordinates(positions, self.position_scale)
            rows = np.concatenate([rows, np.broadcast_to(offsets, (*rows.shape[:-1], 2))], axis=-1)
        return rows

    def encode(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        """Encode descriptors [N, n, D] of N images as features float32 [N, W].

        Raises:
            InputError: there are no images, n or D differs, or values are not finite.
        """
        count = len(self.positions)
        if descriptors.ndim != 3 or not len(descriptors) or descriptors.shape[1] != count:
            raise InputError(
                f"descriptors must be an array [N, {count}, D] of N > 0 images, one for each "
                f"position. Received: shape {descriptors.shape}"
            )
        regions, share = self._pooling

        def encode(index: int) -> NDArray[np.float32]:
            pooled = self.encoder.pool(self.project(descriptors[index]), regions)
            return pooled.ravel() * share

        return np.stack(in_threads(encode, len(descriptors)))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> tuple[str, str]:
        """Add ``encode`` to the graph, one image after the other.

        Args:
            descriptors: [N, n, D] of any dtype.

        Returns:
            Features float32 [N, W], and the words of the descriptors, int64 [N, n], if the encoder
            ``explains``, else "".
        """

        def encode(image: GraphBuilder, rows: str) -> tuple[str, ...]:
            projected = self._project_in_graph(image, rows)
            regions = self.pyramid.regions
            pooled, words = self.encoder.pool_and_assign_in_graph(image, projected, regions)
            joined = self.pyramid.join_in_graph(image, pooled)
            return (joined, words) if self.explains else (joined,)

        values = builder.node("Cast", descriptors, name="descriptors", to=TensorProto.FLOAT)
        features, *words = builder.each([values], encode, [np.float32])
        return features, words[0] if words else ""

    def _project_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add ``project`` of one image, float32 [n, D], to the graph."""
        if self.square_root:
            rows = hellinger_root_in_graph(builder, rows)
        if self.pca is not None:
            rows = self.pca.to_graph(builder, rows)
        if self.position_scale:
            offsets = spatial_coordinates(self.positions, self.position_scale)
            rows = builder.node("Concat", rows, builder.constant("places", offsets), axis=1)
        return rows

    def _project_parts(
        self, values: NDArray[Any], positions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return ``project`` of a sample, computed part by part."""
        starts = range(0, len(values), _AT_ONCE)
        parts = [slice(start, start + _AT_ONCE) for start in starts]
        return np.concatenate([self.project(values[part], positions[part]) for part in parts])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return settings and learnt values as arrays without objects, for ``numpy.savez``."""
        arrays: dict[str, NDArray[Any]] = {
            name: np.array(getattr(self, name)) for name in _SAVED if name != "encoder"
        }
        arrays["encoder"] = np.array(self.encoder.about.title)
        arrays |= {_ENCODER + name: array for name, array in self.encoder.to_arrays().items()}
        if self.pca is not None:
            arrays |= {_PCA + name: array for name, array in self.pca.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the encoder whose ``to_arrays`` gave ``arrays``; its features are the same.

        Raises:
            InputError: an array is missing or does not fit the others, or an encoder is unknown.
        """
        saved = checked_arrays(arrays, _SAVED, "encoder")
        name = str(saved["encoder"])
        if name not in _BY_TITLE:
            raise InputError(
                f"a saved encoder must be one of: {', '.join(_BY_TITLE)}. Received: {name!r}; "
                "train it again with this version"
            )
        pca = _under(arrays, _PCA)
        image_encoder = cls(
            encoder=_BY_TITLE[name].kind.from_arrays(_under(arrays, _ENCODER)),
            levels=tuple(map(str, saved["levels"])),
            positions=np.asarray(saved["positions"], np.float32),
            pca=DescriptorPca.from_arrays(pca) if pca else None,
            square_root=bool(saved["square_root"]),
            position_scale=float(saved["position_scale"]),
        )
        image_encoder._check_parts()
        return image_encoder

    def _check_parts(self) -> None:
        """Raise InputError if the saved parts do not fit each other."""
        if self.position_scale < 0:
            raise InputError(
                "a saved encoder needs a position_scale of at least 0. Received: "
                f"{self.position_scale:g}; train it again with this version"
            )
        # The pyramid checks levels and positions.
        count = self.pyramid.regions.shape[1]
        if self.pca is not None:
            width = self.pca.mean_.size
            self.encoder.pool(self.project(np.zeros((count, width))), self.pyramid.regions)


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
