"""Visual words and how often an image shows each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.config import ASSIGNMENTS, NORMALISATIONS
from scenetrack.config.encoders import ENCODERS
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

    Words are the centres of scikit-learn's k-means from randomly drawn descriptors, chosen by
    ``benchmarks/kmeans.py``. The same seed gives the same words on any number of cores.

    Args:
        codebook_size: number K of visual words.
        random_state: seed of the k-means.
        iterations: most Lloyd iterations; fewer where the centres stop moving.
        assignment: "hard", a descriptor counts for its nearest word; "soft", for its few nearest
            ones, see ``SoftAssignment``.
        tf_idf: whether words of many images count less, see ``fit_idf``.
        normalisation: "l1", a histogram sums to 1; "l2", it has length 1; "hellinger", the square
            root of the first, of length 1 too (Arandjelovic and Zisserman, "Three things everyone
            should know to improve object retrieval", 2012, section 3).

    Attributes:
        codebook_: float32 [K, D], the visual words.
        step_: see ``round_words``; 0 where it was not called.
        sharpness_: of the soft assignment; 0 for the hard one.
        idf_: float64 [K], weights of the words, where ``fit_idf`` learnt them.

    Raises:
        InputError: an unknown assignment or normalisation, at ``fit``.
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
        above, and find their words in 8-bit integers, several times as soon.

        Args:
            step: a power of two.
        """
        words = np.rint(self.codebook_ / np.float32(2 * step))
        words = np.clip(words, -LARGEST_WORD_STEP, LARGEST_WORD_STEP)
        self.codebook_ = (words * np.float32(2 * step)).astype(np.float32)
        self.step_ = float(step)
        return self

    def fit_idf(self, histograms: NDArray[np.floating[Any]]) -> Self:
        """Learn how much each word counts from the training images: Sivic and Zisserman, "Video
        Google", 2003, section 4.1.

        The weight of a word is log((1 + N) / (1 + n)) + 1 for N images, n of which have it. The
        paper's log(N / n) is 0 for words of all images, and of thousands of descriptors of a grid
        most images have most words.

        Args:
            histograms: [N, K], what ``counts`` gives for N images, or anything else that is above
                0 where a word occurs.
        """
        images = np.count_nonzero(np.asarray(histograms) > 0, axis=0)
        return self.set_occurrences(images, len(histograms))

    def set_occurrences(self, images: NDArray[np.int64], total: int) -> Self:
        """``fit_idf`` where each word occurs in ``images`` int64 [K] of ``total`` images."""
        self.idf_ = np.log((1 + total) / (1 + images)) + 1
        return self

    def choose_arithmetic(self, rows: NDArray[np.float32]) -> None:
        """Round hard words to bytes, in which they are found several times as fast."""
        if self.assignment == "hard":
            self.round_words(byte_step(rows))

    @property
    def learns_occurrences(self) -> bool:  # type: ignore[override]
        """Whether words are weighed."""
        return self.tf_idf

    def learn_occurrences(self, images: Iterable[NDArray[np.float32]]) -> None:
        """``fit_idf`` from the descriptors float32 [n, D] of one training image after another."""
        occurrences, total = np.zeros(self.width, np.int64), 0
        for rows in images:
            occurrences += self.counts(rows, np.ones((1, len(rows)), np.bool_))[0] > 0
            total += 1
        self.set_occurrences(occurrences, total)

    @property
    def explains(self) -> bool:  # type: ignore[override]
        """Whether each descriptor counts once, for one word, as much as any other."""
        return (self.assignment, self.normalisation) == ("hard", "l1") and not self.tf_idf

    @property
    def width(self) -> int:
        """Values K of a histogram."""
        return len(self.codebook_)

    @property
    def preparation(self) -> str:
        """Histograms that sum to 1 are square-rooted for linear and RBF machines."""
        return "square_root" if self.normalisation == "l1" else "none"

    def assign(self, descriptors: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest word of each descriptor, the first one of equally near ones.

        After ``round_words`` that of the rounded descriptor.

        Args:
            descriptors: float32 [N, D]; any N, a few MB of distances are held at a time.

        Returns:
            int64 [N], each in [0, K).

        Raises:
            InputError: another D than at fit, or values that are not finite.
        """
        return self._codebook.nearest(self._checked(descriptors))

    def counts(self, rows: NDArray[np.float32], regions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How often each region shows each word: ``pool`` before weights and normalisation.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n], the descriptors of each region.

        Returns:
            float64 [R, K], whole numbers where the assignment is hard.

        Raises:
            InputError: regions of another length, another D than at fit, values not finite.
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
        """Histograms of regions of one image.

        Args:
            rows: float32 [n, D].
            regions: bool [R, n], the descriptors of each region.

        Returns:
            float32 [R, K], each normalised on its own; zeros where a region is empty.

        Raises:
            InputError: regions of another length, another D than at fit, values not finite.
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
        """The twin of ``pool``, for rows float32 [n, D]: float32 [R, K]."""
        if self._soft is None:
            return self.pool_and_assign_in_graph(builder, rows, regions)[0]
        with builder.scope("words"):
            near, shares = self._soft.assign_in_graph(builder, rows)
        return self._histograms_in_graph(builder, near, shares, regions)

    def pool_and_assign_in_graph(
        self, builder: GraphBuilder, rows: str, regions: NDArray[np.bool_]
    ) -> tuple[str, str]:
        """Add ``pool`` and ``assign`` to a graph, for hard words: float32 [R, K] and int64 [n]."""
        if self._soft is not None:
            return self.pool_in_graph(builder, rows, regions), ""
        words = self.assign_in_graph(builder, rows)
        return self.count_in_graph(builder, words, regions), words

    def assign_in_graph(self, builder: GraphBuilder, rows: str) -> str:
        """The twin of ``assign``: float32 [n, D] to int64 [n]."""
        with builder.scope("words"):
            return self._codebook.nearest_in_graph(builder, rows)

    def count_in_graph(self, builder: GraphBuilder, words: str, regions: NDArray[np.bool_]) -> str:
        """Histograms float32 [R, K] of the words int64 [n] of one image."""
        column = builder.constant("column", np.array([-1, 1], np.int64))
        near = builder.node("Reshape", words, column)
        ones = builder.constant("ones", np.ones((regions.shape[1], 1)))
        return self._histograms_in_graph(builder, near, ones, regions)

    def _histograms_in_graph(
        self, builder: GraphBuilder, near: str, shares: str, regions: NDArray[np.bool_]
    ) -> str:
        """Histograms float32 [R, K] of words int64 [n, m] with shares float64 [n, m]."""
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
        """Shares float64 [R, K] weighed and normalised, float32 [R, K]."""
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
        """What was set and learnt, as arrays without objects."""
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
        """The bag of words whose ``to_arrays`` gave ``arrays``; its histograms are the same.

        A codebook alone makes plain shares of hard words.

        Raises:
            InputError: an array is missing, does not fit the others or says what is unknown.
        """
        plain = {name: np.array(value) for name, value in _PLAIN.items()}
        needed = {**_SAVED, "idf": "numbers K"} if "idf" in arrays else _SAVED
        saved = checked_arrays({**plain, **arrays}, needed, cls.about.title)
        words = cls(
            len(saved["codebook"]),
            assignment=str(saved["assignment"]),
            tf_idf="idf" in saved,
            normalisation=str(saved["normalisation"]),
        )
        _check_choice("assignment", words.assignment, ASSIGNMENTS)
        _check_choice("normalisation", words.normalisation, NORMALISATIONS)
        words.codebook_ = np.asarray(saved["codebook"], np.float32)
        words.step_ = float(saved["step"])
        words.sharpness_ = float(saved["sharpness"])
        if words.tf_idf:
            words.idf_ = np.asarray(saved["idf"], np.float64)
        words._check_saved()
        return words

    def _check_saved(self) -> None:
        """Raise InputError for values that nothing that was learnt can have."""
        if self.sharpness_ < 0 or (self.tf_idf and not (self.idf_ > 0).all()):
            raise InputError(
                f"a saved {self.about.title} needs a sharpness of at least 0 and idf above 0. "
                f"Received: others; {_TRAIN_AGAIN}"
            )
        if not self.step_:
            return
        steps = self.codebook_ / np.float32(2 * self.step_) if self.step_ > 0 else np.array(np.inf)
        if not (np.abs(steps) <= LARGEST_WORD_STEP).all() or (steps != np.rint(steps)).any():
            raise InputError(
                f"a saved {self.about.title} needs words of at most {LARGEST_WORD_STEP} double "
                f"steps. Received: a step of {self.step_:g} that others have; {_TRAIN_AGAIN}"
            )

    @property
    def _codebook(self) -> Codebook:
        """The words, with what a search among them needs, made once."""
        made: Codebook | None = getattr(self, "_made", None)
        if made is None or made.words is not self.codebook_ or made.step != self.step_:
            made = self._made = Codebook(self.codebook_, self.step_)
        return made

    @property
    def _soft(self) -> SoftAssignment | None:
        if self.assignment == "hard":
            return None
        return SoftAssignment(self._codebook, self.sharpness_)

    @property
    def _weights(self) -> NDArray[np.float64]:
        if not hasattr(self, "idf_"):
            raise InputError(
                "tf-idf needs the images that each word occurs in. Received: none; call fit_idf "
                "with histograms of the training images"
            )
        return self.idf_

    def _checked(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = checked_rows(descriptors)
        check_width(rows.shape[1], self.codebook_.shape[1])
        return rows


def _check_choice(what: str, received: str, allowed: Sequence[str]) -> None:
    if received not in allowed:
        raise InputError(f"{what} must be one of: {', '.join(allowed)}. Received: {received!r}")
