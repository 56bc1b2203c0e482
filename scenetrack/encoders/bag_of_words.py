"""Bag of visual words: histograms of the nearest words in a codebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.config import ASSIGNMENTS, NORMALISATIONS
from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.checks import check_regions, check_width, checked_rows
from scenetrack.encoders.codebook import LARGEST_WORD_STEP, Codebook, byte_step, learn_words
from scenetrack.encoders.soft_assignment import SoftAssignment, learn_sharpness
from scenetrack.errors import InputError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.system.arrays import checked_arrays

_SAVED = {
    "codebook": "numbers K D",
    "assignment": "text",
    "normalisation": "text",
    "step": "numbers",
    "sharpness": "numbers",
}
_PLAIN = {"assignment": "hard", "normalisation": "l1", "step": 0.0, "sharpness": 0.0}
_TINY = float(np.finfo(np.float64).tiny)
_TRAIN_AGAIN = "train it again with this version"


class BagOfWords(LocalEncoder):
    """Histogram of visual words: Csurka et al., "Visual categorization with bags of keypoints",
    2004.

    Visual words are the cluster centres of scikit-learn's k-means (``benchmarks/kmeans.py`` says
    why), started from random descriptors. A seed gives the same words on any number of cores.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        iterations: most Lloyd iterations; fewer if the words stop moving.
        assignment: "hard", a descriptor counts for its nearest word; "soft", for its nearest words,
            see ``SoftAssignment``.
        tf_idf: whether words that occur in many images weigh less, see ``fit_idf``.
        normalisation: "l1", a histogram sums to 1; "l2", it has length 1; "hellinger", the square
            root of the first, of length 1 too (Arandjelovic and Zisserman, "Three things everyone
            should know to improve object retrieval", 2012, section 3).

    Attributes:
        codebook_: float32 [K, D], the visual words.
        step_: step of ``round_words``; 0 where it was not called.
        sharpness_: sharpness of the soft assignment; 0 for the hard one.
        idf_: float64 [K], weights of the words, set by ``fit_idf``.

    Raises:
        InputError: the assignment or normalisation is unknown, at ``fit``.
    """

    about = ENCODERS["bag_of_words"]
    step_ = 0.0
    sharpness_ = 0.0

    def __init__(
        self,
        codebook_size: int = 1024,
        random_state: int = 0,
        iterations: int = 25,
        assignment: str = "hard",
        tf_idf: bool = False,
        normalisation: str = "l1",
    ) -> None:
        self.codebook_size = codebook_size
        self.random_state = random_state
        self.iterations = iterations
        self.assignment = assignment
        self.tf_idf = tf_idf
        self.normalisation = normalisation

    def fit(self, descriptors: NDArray[np.float32], y: None = None) -> Self:
        """Learn the codebook from a sample of ``descriptors`` float32 [N, D], N >= K.

        Raises:
            InputError: fewer descriptors than words, or values that are not finite.
        """
        _check_choice("assignment", self.assignment, ASSIGNMENTS)
        _check_choice("normalisation", self.normalisation, NORMALISATIONS)
        rows = checked_rows(descriptors)
        self.codebook_ = learn_words(rows, self.codebook_size, self.random_state, self.iterations)
        self.step_ = 0.0
        if self._soft is not None:
            self.sharpness_ = learn_sharpness(self._codebook, rows)
        return self

    def round_words(self, step: float) -> Self:
        """Round the words to multiples of ``2 * step``, at most 64 on either side of 0.

        Descriptors are then rounded to multiples of ``step`` too, at most 128 below 0 and 127
        above, and their words are searched in 8-bit integers, which is several times faster.

        Args:
            step: a power of two.
        """
        words = np.rint(self.codebook_ / np.float32(2 * step))
        words = np.clip(words, -LARGEST_WORD_STEP, LARGEST_WORD_STEP)
        self.codebook_ = (words * np.float32(2 * step)).astype(np.float32)
        self.step_ = float(step)
        return self

    def fit_idf(self, histograms: NDArray[np.floating[Any]]) -> Self:
        """Learn the weight of each word from the training images: Sivic and Zisserman, "Video
        Google", 2003, section 4.1.

        The weight of a word is log((1 + N) / (1 + n)) + 1, where it occurs in n of N images. The
        paper's log(N / n) is 0 for words of all images, and with thousands of descriptors from a
        grid most images have most words.

        Args:
            histograms: [N, K], result of ``counts`` for N images, or any values that are above 0
                where a word occurs.
        """
        images = np.count_nonzero(np.asarray(histograms) > 0, axis=0)
        return self.set_occurrences(images, len(histograms))

    def set_occurrences(self, images: NDArray[np.int64], total: int) -> Self:
        """Set the weights of words that occur in ``images`` int64 [K] of ``total`` images each."""
        self.idf_ = np.log((1 + total) / (1 + images)) + 1
        return self

    def choose_arithmetic(self, rows: NDArray[np.float32]) -> None:
        """Round the words of a hard assignment, for the faster search in 8-bit integers."""
        if self.assignment == "hard":
            self.round_words(byte_step(rows))

    @property
    def learns_occurrences(self) -> bool:  # type: ignore[override]
        """Whether words have tf-idf weights."""
        return self.tf_idf

    def learn_occurrences(self, images: Iterable[NDArray[np.float32]]) -> None:
        """Apply ``fit_idf`` to the descriptors float32 [n, D] of each training image in turn."""
        occurrences, total = np.zeros(self.width, np.int64), 0
        for rows in images:
            occurrences += self.counts(rows, np.ones((1, len(rows)), np.bool_))[0] > 0
            total += 1
        self.set_occurrences(occurrences, total)

    @property
    def explains(self) -> bool:  # type: ignore[override]
        """Whether every descriptor counts for one word, with the same weight as all others."""
        return (self.assignment, self.normalisation) == ("hard", "l1") and not self.tf_idf

    @property
    def width(self) -> int:
        """Number K of values of a histogram."""
        return len(self.codebook_)

    @property
    def preparation(self) -> str:
        """Histograms that sum to 1 are square-rooted for linear and RBF SVMs."""
        return "square_root" if self.normalisation == "l1" else "none"

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the nearest word of each descriptor, the first one of equally near words.

        After ``round_words`` it is that of the rounded descriptor.

        Args:
            descriptors: float32 [N, D], any N; a few MB of distances are held at a time.

        Returns:
            int64 [N], each in [0, K).

        Raises:
            InputError: D differs from that at fit, or values are not finite.
        """
        return self._codebook.nearest(self._checked(descriptors))

    def counts(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Count the visual words of each region: ``pool`` before weights and normalisation.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n], the descriptors of each region.

        Returns:
            float64 [R, K], whole numbers where the assignment is hard.

        Raises:
            InputError: regions do not fit, D differs from that at fit, or values are not finite.
        """
        rows = self._checked(rows)
        check_regions(regions, len(rows))
        size = self.width
        if self._soft is None:
            words = self._codebook.nearest(rows)
            counts = np.stack([np.bincount(words[region], minlength=size) for region in regions])
            return counts.astype(np.float64)
        near, shares = self._soft.assign(rows)
        return np.stack(
            [np.bincount(near[region].ravel(), shares[region].ravel(), size) for region in regions]
        )

    def pool(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Compute the histograms of the regions of one image.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n], the descriptors of each region.

        Returns:
            float32 [R, K], each normalised separately; zeros where a region is empty.

        Raises:
            InputError: regions do not fit, D differs from that at fit, or values are not finite.
        """
        shares = self.counts(rows, regions)
        shares /= np.maximum(regions.sum(axis=1, keepdims=True), 1)
        if self.tf_idf:
            shares *= self._weights
        if self.normalisation == "l2":
            shares /= np.maximum(np.sqrt((shares**2).sum(axis=1, keepdims=True)), _TINY)
        elif self.tf_idf:
            shares /= np.maximum(shares.sum(axis=1, keepdims=True), _TINY)
        if self.normalisation == "hellinger":
            shares = np.sqrt(shares)
        return shares.astype(np.float32)

    def pool_in_graph(self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]) -> str:
        """Add ``pool`` to the graph: rows float32 [n, D] to float32 [R, K]."""
        if self._soft is None:
            return self.pool_and_assign_in_graph(builder, rows, regions)[0]
        with builder.scope("words"):
            near, shares = self._soft.assign_in_graph(builder, rows)
        return self._histograms_in_graph(builder, near, shares, regions)

    def pool_and_assign_in_graph(
        self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]
    ) -> tuple[str, str]:
        """Add ``pool``, and ``assign`` if it is hard, to the graph: float32 [R, K], int64 [n]."""
        if self._soft is not None:
            return self.pool_in_graph(builder, rows, regions), ""
        words = self.assign_in_graph(builder, rows)
        return self.count_in_graph(builder, words, regions), words

    def assign_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """Add ``assign`` to the graph: float32 [n, D] to int64 [n]."""
        with builder.scope("words"):
            return self._codebook.nearest_in_graph(builder, rows)

    def count_in_graph(self, builder: GraphBuilder, words: str, regions: NDArray[np.bool_]) -> str:
        """Add the histograms float32 [R, K] of the words int64 [n] of one image to the graph."""
        column = builder.constant("column", np.array([-1, 1], np.int64))
        near = builder.node("Reshape", words, column)
        ones = builder.constant("ones", np.ones((regions.shape[1], 1)))
        return self._histograms_in_graph(builder, near, ones, regions)

    def _histograms_in_graph(
        self, builder: GraphBuilder, near: str, shares: str, regions: NDArray[np.bool_]
    ) -> str:
        """Add histograms float32 [R, K] of words int64 [n, m] with shares float64 [n, m]."""
        size = self.width
        region, member = np.nonzero(regions)
        with builder.scope("histogram"):
            members = builder.constant("members", member)
            firsts = builder.constant("firsts", region[:, None] * size)
            cells = builder.node("Add", builder.node("Gather", near, members), firsts)
            flat = builder.constant("flat", np.array([-1], np.int64))
            counts = builder.node(
                "ScatterElements",
                builder.constant("none", np.zeros(len(regions) * size)),
                builder.node("Reshape", cells, flat, name="cells"),
                builder.node("Reshape", builder.node("Gather", shares, members), flat),
                name="counts",
                reduction="add",
            )
            shape = builder.constant("shape", np.array([len(regions), size], np.int64))
            totals = np.maximum(regions.sum(axis=1, keepdims=True), 1).astype(np.float64)
            by_region = builder.node("Reshape", counts, shape)
            values = builder.node("Div", by_region, builder.constant("totals", totals))
            return self._normalise_in_graph(builder, values)

    def _normalise_in_graph(self, builder: GraphBuilder, values: str) -> str:
        """Add the weights and the normalisation of shares float64 [R, K]: float32 [R, K]."""
        if self.tf_idf:
            values = builder.node("Mul", values, builder.constant("idf", self._weights))
        if self.tf_idf or self.normalisation == "l2":
            axis = builder.constant("axis", np.array([1], np.int64))
            tiny = builder.constant("tiny", np.array(_TINY))
            if self.normalisation == "l2":
                length = builder.node("Sqrt", builder.node("ReduceSumSquare", values, axis))
            else:
                length = builder.node("ReduceSum", values, axis)
            values = builder.node("Div", values, builder.node("Max", length, tiny))
        if self.normalisation == "hellinger":
            values = builder.node("Sqrt", values)
        return builder.node("Cast", values, name="histograms", to=TensorProto.FLOAT)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return settings and learnt values as arrays without objects."""
        arrays: dict[str, NDArray[Any]] = {
            "codebook": self.codebook_,
            "assignment": np.array(self.assignment),
            "normalisation": np.array(self.normalisation),
            "step": np.array(self.step_),
            "sharpness": np.array(self.sharpness_),
        }
        return {**arrays, "idf": self._weights} if self.tf_idf else arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the bag of words whose ``to_arrays`` gave ``arrays``; its histograms are the same.

        From a codebook alone it has hard assignment and the normalisation "l1".

        Raises:
            InputError: an array is missing, does not fit the others or names an unknown setting.
        """
        plain = {name: np.array(value) for name, value in _PLAIN.items()}
        needed = {**_SAVED, "idf": "numbers K"} if "idf" in arrays else _SAVED
        saved = checked_arrays({**plain, **arrays}, needed, cls.about.title)
        encoder = cls(
            len(saved["codebook"]),
            assignment=str(saved["assignment"]),
            tf_idf="idf" in saved,
            normalisation=str(saved["normalisation"]),
        )
        _check_choice("assignment", encoder.assignment, ASSIGNMENTS)
        _check_choice("normalisation", encoder.normalisation, NORMALISATIONS)
        encoder.codebook_ = np.asarray(saved["codebook"], np.float32)
        encoder.step_ = float(saved["step"])
        encoder.sharpness_ = float(saved["sharpness"])
        if encoder.tf_idf:
            encoder.idf_ = np.asarray(saved["idf"], np.float64)
        encoder._check_saved()
        return encoder

    def _check_saved(self) -> None:
        """Raise InputError for saved values that ``fit`` cannot give."""
        if self.sharpness_ < 0 or (self.tf_idf and not (self.idf_ > 0).all()):
            raise InputError(
                f"a saved {self.about.title} needs a sharpness of at least 0 and idf above 0. "
                f"Received: other values; {_TRAIN_AGAIN}"
            )
        if not self.step_:
            return
        steps = self.codebook_ / np.float32(2 * self.step_) if self.step_ > 0 else np.array(np.inf)
        if not (np.abs(steps) <= LARGEST_WORD_STEP).all() or (steps != np.rint(steps)).any():
            raise InputError(
                f"a saved {self.about.title} needs words of at most {LARGEST_WORD_STEP} double "
                f"steps. Received: other words for the step {self.step_:g}; {_TRAIN_AGAIN}"
            )

    @property
    def _codebook(self) -> Codebook:
        """The words with what the search needs, made once."""
        book: Codebook | None = getattr(self, "_made", None)
        if book is None or book.words is not self.codebook_ or book.step != self.step_:
            book = self._made = Codebook(self.codebook_, self.step_)
        return book

    @property
    def _soft(self) -> SoftAssignment | None:
        if self.assignment == "hard":
            return None
        return SoftAssignment(self._codebook, self.sharpness_)

    @property
    def _weights(self) -> NDArray[np.float64]:
        if not hasattr(self, "idf_"):
            raise InputError(
                "tf-idf needs the number of images that each word occurs in. Received: none; call "
                "fit_idf with histograms of the training images"
            )
        return self.idf_

    def _checked(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = checked_rows(descriptors)
        check_width(rows.shape[1], self.codebook_.shape[1])
        return rows


def _check_choice(name: str, received: str, allowed: Sequence[str]) -> None:
    if received not in allowed:
        raise InputError(f"{name} must be one of: {', '.join(allowed)}. Received: {received!r}")
