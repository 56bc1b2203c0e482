"""From the local descriptors of an image to one vector: reduction, visual words, histograms.

Everything here is fitted on a sample of training descriptors and then works on one batch of images
after another, so that no more descriptors than a batch's need to be in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA

from scenetrack.errors import InputError

# Distances of a block stay in the processor's cache between the product and the search.
_BLOCK_BYTES = 4 * 2**20


class DescriptorPca(TransformerMixin, BaseEstimator):
    """Principal components of descriptors, without whitening.

    The components come from the eigenvectors of the D x D covariance matrix, which costs one pass
    over the sample however many descriptors it holds.

    Args:
        n_components: dimensions d to keep, 1 to D.

    Attributes:
        mean_: float32 [D].
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
        # The mean is taken off after the product: [..., d] is smaller to pass over than [..., D].
        projected = values @ self.components_.T
        projected -= self.components_ @ self.mean_
        return np.asarray(projected)


class BagOfWords(TransformerMixin, BaseEstimator):
    """Histogram of visual words: Csurka et al., "Visual categorization with bags of keypoints",
    2004.

    Words are the centres of k-means: Lloyd's iterations from randomly drawn descriptors. The same
    seed gives the same words on any number of threads; ``benchmarks/kmeans.py`` holds this
    implementation against those of libraries.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        iterations: most Lloyd iterations; fewer where no descriptor changes its word.

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
        rng = np.random.default_rng(self.random_state)
        start = rng.choice(len(rows), self.codebook_size, replace=False)
        self.codebook_ = _lloyd(rows, rows[np.sort(start)], self.iterations)
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
        return _nearest(rows, self.codebook_)[0]

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


def _lloyd(rows: NDArray[np.float32], start: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Centres float32 [K, D] after at most ``most`` iterations over ``rows`` [N, D]."""
    centres = start.copy()
    before = np.full(len(rows), -1)
    every = np.arange(len(rows))
    squares = np.einsum("nd,nd->n", rows, rows)
    for _ in range(most):
        words, nearness = _nearest(rows, centres)
        if np.array_equal(words, before):
            break
        before = words
        counts = np.bincount(words, minlength=len(centres))
        # A sparse product adds rows in their order, so that threads cannot change the sums.
        ones = np.ones(len(rows), np.float32)
        members = csr_array((ones, (words, every)), shape=(len(centres), len(rows)))
        centres = (members @ rows) / np.maximum(counts, 1)[:, None].astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        if empty.size:
            # Words that nothing is near to, as after equal starts, go where words are missed most.
            farthest = np.argsort(-(squares + nearness), kind="stable")[: empty.size]
            centres[empty] = rows[farthest]
    return centres


def _nearest(
    rows: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centre c of each row x, int64 [N], and |x - c|^2 - |x|^2, float32 [N]."""
    weights = np.ascontiguousarray(-2 * centres.T)  # D x K
    offsets = np.einsum("kd,kd->k", centres, centres)
    step = max(1, _BLOCK_BYTES // (4 * len(offsets)))
    distances = np.empty((min(step, len(rows)), len(offsets)), np.float32)
    words = np.empty(len(rows), np.int64)
    nearness = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), step):
        part = distances[: min(step, len(rows) - start)]
        # |x|^2 is left out: it is the same for every centre.
        np.matmul(rows[start : start + step], weights, out=part)
        part += offsets
        found = np.argmin(part, axis=1)
        words[start : start + step] = found
        nearness[start : start + step] = part[np.arange(len(part)), found]
    return words, nearness


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
