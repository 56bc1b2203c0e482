"""From the local descriptors of an image to one vector: reduction, visual words, histograms.

Everything here is fitted on a sample of training descriptors and then works on one batch of images
after another, so that no more descriptors than a batch's need to be in memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from scenetrack.errors import InputError

logger = logging.getLogger(__name__)

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
        # |x - c|^2 without |x|^2, which is the same for every word c.
        weights = np.ascontiguousarray(-2 * self.codebook_.T)  # D x K
        offsets = np.einsum("kd,kd->k", self.codebook_, self.codebook_)
        step = max(1, _BLOCK_BYTES // (4 * len(offsets)))
        distances = np.empty((min(step, len(rows)), len(offsets)), np.float32)
        words = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), step):
            part = distances[: min(step, len(rows) - start)]
            np.matmul(rows[start : start + step], weights, out=part)
            part += offsets
            words[start : start + step] = np.argmin(part, axis=1)
        return words

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


@dataclass(frozen=True)
class Vocabulary:
    """What turns an image's descriptors into a histogram of visual words."""

    pca: DescriptorPca | None
    words: BagOfWords

    def project(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [..., D] after PCA, float32 [..., d]."""
        return descriptors if self.pca is None else self.pca.transform(descriptors)

    def histograms(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Descriptors float32 [N, n, D] as histograms float32 [N, codebook_size]."""
        return self.words.transform(self.project(descriptors))


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
