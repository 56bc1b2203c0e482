"""From the local descriptors of an image to one vector: reduction, visual words, histograms.

Everything here is fitted on a sample of training descriptors and then works on one batch of images
after another, so that no more descriptors than a batch's need to be in memory.

A descriptor half-way between two words must fall to the same one in NumPy and in an ONNX graph, on
any processor and in batches of any size. So products are sums of integers that float64 holds
exactly, in whatever order they are added up: values are first rounded to a grid as fine as
float32.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from scenetrack.errors import InputError
from scenetrack.graph import GraphBuilder

logger = logging.getLogger(__name__)

# Distances of a block stay in the processor's cache between the product and the search.
_BLOCK_BYTES = 4 * 2**20

# A product of two rows is exact while the product of their lengths is below 2**52 grid steps (and
# twice that, with the squared length of a word, below 2**53). A row of the components has length 1
# and 2**23 steps; words have up to 2**24; descriptors may be 8 times as long as those at fit. What
# is longer still is rounded as float64 rounds.
_COMPONENT_BITS, _PCA_BITS, _WORD_BITS = 23, 26, 24


class DescriptorPca(TransformerMixin, BaseEstimator):
    """Principal components of descriptors, without whitening.

    The components come from the eigenvectors of the D x D covariance matrix, which costs one pass
    over the sample however many descriptors it holds.

    Args:
        n_components: dimensions d to keep, 1 to D.

    Attributes:
        mean_: float32 [D].
        length_: float, the largest Euclidean length of a descriptor of the sample.
        components_: float32 [d, D], orthonormal rows, largest variance first.
        explained_variance_ratio_: float32 [d], share of the sample's variance, each in [0, 1].
    """

    def __init__(self, n_components: int = 80) -> None:
        self.n_components = n_components

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn the components from ``descriptors`` float32 [N, D].

        Raises:
            InputError: fewer descriptors or dimensions than components, or values not finite.
        """
        rows = _checked_rows(descriptors)
        if self.n_components > min(rows.shape):
            raise InputError(
                f"PCA to {self.n_components} dimensions needs at least as many descriptors and "
                f"descriptor values. Received: {rows.shape[0]} descriptors of {rows.shape[1]} "
                "values; choose a smaller pca, or 0 for none"
            )
        pca = PCA(self.n_components, svd_solver="covariance_eigh").fit(rows)
        self.mean_ = pca.mean_.astype(np.float32)
        self.length_ = float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max()))
        self.components_ = pca.components_.astype(np.float32)
        self.explained_variance_ratio_ = pca.explained_variance_ratio_.astype(np.float32)
        return self

    def transform(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project ``descriptors`` float32 [..., D] to float32 [..., d].

        Raises:
            InputError: another D than at fit.
        """
        values = np.asarray(descriptors, dtype=np.float32)
        _check_width(values.shape[-1], self.mean_.size)
        scale, weights, offsets = self._grid()
        # The mean is taken off after the product: [..., d] is smaller to pass over than [..., D].
        projected = _to_grid(values, scale) @ weights
        projected -= offsets
        projected *= 1 / (scale * 2**_COMPONENT_BITS)
        return np.asarray(projected.astype(np.float32))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> str:
        """The twin of ``transform``: float32 [..., D] to float32 [..., d]."""
        scale, weights, offsets = self._grid()
        with builder.scope("pca"):
            rows = _grid_in_graph(builder, descriptors, scale)
            product = builder.node("MatMul", rows, builder.constant("weights", weights))
            centred = builder.node("Sub", product, builder.constant("offsets", offsets))
            step = np.array(1 / (scale * 2**_COMPONENT_BITS))
            projected = builder.node("Mul", centred, builder.constant("step", step))
            return builder.node("Cast", projected, to=TensorProto.FLOAT)

    def _grid(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Steps per unit of a descriptor; components [D, d] and projected mean [d] in steps."""
        scale = _steps_per_unit(self.length_, _PCA_BITS)
        weights = _to_grid(self.components_, 2.0**_COMPONENT_BITS).T
        return scale, np.ascontiguousarray(weights), _to_grid(self.mean_, scale) @ weights


class BagOfWords(TransformerMixin, BaseEstimator):
    """Histogram of visual words: Csurka et al., "Visual categorization with bags of keypoints",
    2004.

    Words are the centres of scikit-learn's k-means from randomly drawn descriptors, chosen by
    ``benchmarks/kmeans.py``. The same seed gives the same words on any number of cores.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        iterations: most Lloyd iterations; fewer where the centres stop moving.

    Attributes:
        codebook_: float32 [K, D], the visual words.
    """

    def __init__(
        self, codebook_size: int = 1024, random_state: int = 0, iterations: int = 25
    ) -> None:
        self.codebook_size = codebook_size
        self.random_state = random_state
        self.iterations = iterations

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn the codebook from a sample of ``descriptors`` float32 [N, D], N >= K.

        Raises:
            InputError: fewer descriptors than words, or values that are not finite.
        """
        rows = _checked_rows(descriptors)
        if len(rows) < self.codebook_size:
            raise InputError(
                f"a codebook of {self.codebook_size} words needs at least as many descriptors. "
                f"Received: {len(rows)}; choose a smaller codebook_size or more patches or images"
            )
        kmeans = KMeans(
            self.codebook_size,
            init="random",
            n_init=1,
            max_iter=self.iterations,
            random_state=self.random_state,
        )
        # Threads add up their own parts of a centre, in the order in which they finish: one
        # thread makes the codebook a function of the seed alone.
        with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            kmeans.fit(rows)
        if caught:
            logger.warning(
                "the %d descriptors have fewer distinct values than the %d words asked for: "
                "some words are equal",
                len(rows),
                self.codebook_size,
            )
        self.codebook_ = np.ascontiguousarray(kmeans.cluster_centers_, np.float32)
        return self

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest word of each descriptor, the first one of equally near ones.

        Args:
            descriptors: float32 [N, D]; any N, a few MB of distances are held at a time.

        Returns:
            int64 [N], each in [0, K).

        Raises:
            InputError: another D than at fit, or values that are not finite.
        """
        rows = _checked_rows(descriptors)
        _check_width(rows.shape[1], self.codebook_.shape[1])
        scale, weights, offsets = self._grid()
        step = max(1, _BLOCK_BYTES // (8 * len(offsets)))
        distances = np.empty((min(step, len(rows)), len(offsets)))
        words = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), step):
            part = distances[: min(step, len(rows) - start)]
            np.matmul(_to_grid(rows[start : start + step], scale), weights, out=part)
            part += offsets
            words[start : start + step] = np.argmin(part, axis=1)
        return words

    def _grid(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Steps per unit; weights [D, K] and offsets [K] of the words' distances in steps.

        They are of |x - c|^2 without |x|^2, which is the same for every word c.
        """
        longest = float(np.sqrt(np.einsum("kd,kd->k", self.codebook_, self.codebook_).max()))
        scale = _steps_per_unit(longest, _WORD_BITS)
        words = _to_grid(self.codebook_, scale)
        return scale, np.ascontiguousarray(-2 * words.T), np.einsum("kd,kd->k", words, words)

    def transform(
        self, descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Histograms of a batch of images, each summing to 1.

        Args:
            descriptors: float32 [n_images, n_patches, D], or one float32 [n_i, D] per image.

        Returns:
            float32 [n_images, K], in [0, 1].

        Raises:
            InputError: an image without descriptors, another D than at fit, values not finite.
        """
        rows, counts = _joined(descriptors)
        size = len(self.codebook_)
        image = np.repeat(np.arange(len(counts)), counts)
        cells = image * size + self.assign(rows)
        histograms = np.bincount(cells, minlength=len(counts) * size).reshape(-1, size)
        return (histograms / counts[:, None]).astype(np.float32)

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> tuple[str, str]:
        """The twin of ``transform`` and ``assign`` for one image.

        Args:
            descriptors: float32 [n_patches, D].

        Returns:
            Its histogram, float32 [K], and its words, int64 [n_patches].
        """
        scale, weights, offsets = self._grid()
        with builder.scope("words"):
            rows = _grid_in_graph(builder, descriptors, scale)
            constants = (
                builder.constant(name, values)
                for name, values in (("weights", weights), ("offsets", offsets))
            )
            distances = builder.node("Gemm", rows, *constants)
            words = builder.node("ArgMin", distances, name="nearest", axis=1, keepdims=0)
            shape = builder.node("Shape", words)
            one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
            ones = builder.node("ConstantOfShape", shape, name="ones", value=one)
            none = builder.constant("none", np.zeros(len(offsets), np.float32))
            counts = builder.node(
                "ScatterElements", none, words, ones, name="counts", reduction="add"
            )
            total = builder.node("Cast", shape, name="total", to=TensorProto.FLOAT)
            return builder.node("Div", counts, total, name="histogram"), words


@dataclass(frozen=True)
class Vocabulary:
    """What turns an image's descriptors into a histogram of visual words."""

    pca: DescriptorPca | None
    words: BagOfWords

    @property
    def width(self) -> int:
        """Values D of a descriptor."""
        return int((self.words.codebook_ if self.pca is None else self.pca.components_).shape[1])

    def project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [..., D] after PCA, float32 [..., d]."""
        return descriptors if self.pca is None else self.pca.transform(descriptors)

    def histograms(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [N, n, D] as histograms float32 [N, codebook_size]."""
        return self.words.transform(self.project(descriptors))

    def to_graph(self, builder: GraphBuilder, descriptors: str) -> tuple[str, str]:
        """The twin of ``histograms``, one image after the other.

        Args:
            descriptors: float32 [N, n, D].

        Returns:
            Histograms, float32 [N, codebook_size], and words, int64 [N, n].
        """

        def encode(image: GraphBuilder, rows: str) -> tuple[str, str]:
            projected = rows if self.pca is None else self.pca.to_graph(image, rows)
            return self.words.to_graph(image, projected)

        histograms, words = builder.each([descriptors], encode, [np.float32])
        return histograms, words

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that was learnt as arrays without objects, for ``numpy.savez``."""
        arrays: dict[str, NDArray[Any]] = {"codebook": self.words.codebook_}
        if self.pca is not None:
            arrays["pca_mean"] = self.pca.mean_
            arrays["pca_components"] = self.pca.components_
            arrays["pca_length"] = np.array(self.pca.length_)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The vocabulary whose ``to_arrays`` gave ``arrays``; its histograms are the same.

        Raises:
            InputError: an array is missing or has another shape.
        """
        names = [name for name in _VOCABULARY_RANKS if name in arrays]
        ranks = {name: np.ndim(arrays[name]) for name in names}
        if names not in (["codebook"], list(_VOCABULARY_RANKS)) or any(
            ranks[name] != _VOCABULARY_RANKS[name] for name in names
        ):
            raise InputError(
                "a saved vocabulary needs a codebook, and pca_mean, pca_components and pca_length "
                f"where it has a PCA. Received: {', '.join(sorted(arrays)) or 'nothing'}; train "
                "it again"
            )
        codebook = np.asarray(arrays["codebook"], np.float32)
        words = BagOfWords(len(codebook))
        words.codebook_ = codebook
        if len(names) == 1:
            return cls(None, words)
        pca = DescriptorPca(len(arrays["pca_components"]))
        pca.mean_ = np.asarray(arrays["pca_mean"], np.float32)
        pca.components_ = np.asarray(arrays["pca_components"], np.float32)
        pca.length_ = float(arrays["pca_length"])
        return cls(pca, words)


# Axes of each array of a saved vocabulary.
_VOCABULARY_RANKS = {"codebook": 2, "pca_mean": 1, "pca_components": 2, "pca_length": 0}


def _steps_per_unit(length: float, bits: int) -> float:
    """The power of two that makes ``length`` at most 2**bits grid steps, if float32 has it."""
    exponent = bits - int(np.frexp(length)[1]) if length else 0
    return float(2.0 ** min(exponent, 100))


def _to_grid(values: NDArray[np.float32], scale: float) -> NDArray[np.float64]:
    """``values`` in whole grid steps."""
    # A power of two times a float32 is exact, and so is what is rounded of it.
    scaled = values * np.float32(scale)
    return np.asarray(np.rint(scaled, out=scaled), np.float64)


def _grid_in_graph(builder: GraphBuilder, tensor: str, scale: float) -> str:
    scaled = builder.node("Mul", tensor, builder.constant("scale", np.array(scale, np.float32)))
    steps = builder.node("Round", scaled, name="steps")
    return builder.node("Cast", steps, name="float64", to=TensorProto.DOUBLE)


def _joined(
    descriptors: NDArray[np.float32] | Sequence[NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All images' descriptors as [N, D], and how many each image has, int64 [n_images]."""
    counts = np.array([len(image) for image in descriptors], dtype=np.int64)
    if not len(counts) or not counts.all():
        missing = f"image {int(np.argmin(counts))} has none" if len(counts) else "no images"
        raise InputError(f"every image needs at least one descriptor. Received: {missing}")
    if isinstance(descriptors, np.ndarray) and descriptors.ndim == 3:
        return descriptors.reshape(-1, descriptors.shape[-1]), counts
    return np.concatenate(list(descriptors)), counts


def _checked_rows(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.ascontiguousarray(descriptors, dtype=np.float32)
    if rows.ndim != 2:
        raise InputError(f"descriptors must be an array [N, D]. Received: shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError(
            "descriptors must be finite. Received: NaN or infinity; check the network's layer"
        )
    return rows


def _check_width(received: int, required: int) -> None:
    if received != required:
        raise InputError(
            f"descriptors must have {required} values, as at fit. Received: {received}"
        )
