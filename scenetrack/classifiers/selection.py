"""Honest accuracy of what was chosen: chosen by some images, judged on others.

The best of many settings is right on the images that it was chosen by more often than on new ones,
also where labels are random (Varma and Simon, "Bias in error estimation when using cross-validation
for model selection", 2006). Here each part of the images is judged by the setting that is best on
the other parts, from predictions that are there already (Tsamardinos, Greasidou and Borboudakis,
"Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_PARTS = 5


def class_parts(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the part, 0 to 4, of each image int64 [n], with equally many of each class."""
    parts = np.empty(len(labels), np.int64)
    # By class, then in turn: the order of the images has nothing to do with their difficulty.
    parts[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _PARTS
    return parts


@dataclass(frozen=True)
class Selection:
    """What candidates say of images that none of them was fitted on.

    Attributes:
        right: bool [S, n], whether each of S candidates is right on each image; of equally good
            candidates the first is chosen.
        images: int64 [n], which images these are.
        parts: int64 [n], the part that each image belongs to.
    """

    right: NDArray[np.bool_]
    images: NDArray[np.int64]
    parts: NDArray[np.int64]

    @classmethod
    def of_held_out(
        cls, right: NDArray[np.bool_], images: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> Self:
        """Return a selection among ``images`` int64 [n], in parts of equally many of each class.

        Args:
            right: bool [S, n].
            images: int64 [n].
            labels: int64 [n], their classes.
        """
        return cls(right, images, class_parts(labels))

    @classmethod
    def joined(cls, selections: Sequence[Self]) -> Self:
        """Return the candidates of all ``selections``, which are of the same images and parts."""
        first = selections[0]
        return cls(
            np.concatenate([selection.right for selection in selections]), first.images, first.parts
        )

    def best(self, images: NDArray[np.bool_]) -> int:
        """Return the first candidate with the best mean accuracy over the parts of ``images``.

        Args:
            images: bool [n], those that count.
        """
        parts = [images & (self.parts == part) for part in np.unique(self.parts[images])]
        if not parts:
            return 0
        means = np.mean([self.right[:, part].mean(axis=1) for part in parts], axis=0)
        # Means of the same accuracies may differ in their last bits.
        return int(np.flatnonzero(means >= means.max() - 1e-12)[0])

    def judged(self) -> NDArray[np.bool_]:
        """Return whether what the other parts choose is right on each image: bool [n]."""
        right = np.zeros(len(self.images), np.bool_)
        for part in np.unique(self.parts):
            here = self.parts == part
            right[here] = self.right[self.best(~here)][here]
        return right
