"""Labelled images in two splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Split:
    """Image files, their labels and their contents.

    Attributes:
        paths: the files.
        labels: int64 [N], indices into the class names.
        names: CLASS/FILE of each, which is the same wherever the data set lies.
        digests: SHA-256 of each file's bytes in hex.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Return the images at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        paths, names, digests = (
            tuple(values[index] for index in chosen)
            for values in (self.paths, self.names, self.digests)
        )
        return Split(paths, self.labels[chosen], names, digests)


@dataclass(frozen=True)
class SceneDataset:
    """A data set, split into training and test images.

    Attributes:
        name: ``demo``, ``mit8`` or the folder's name.
        digest: 16 hex digits that change with the split, class, name or content of any image,
            but not with the location of the folder.
        bad_files: files that were left out, each with the reason.
        left_out: names of training images that were left out because their bytes are in test, each
            with the test image's name.
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    test: Split
    digest: str
    bad_files: tuple[tuple[Path, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def without_test(self) -> SceneDataset:
        """Return the same data set, with the same digest, without its test images."""
        return dataclasses.replace(self, test=Split((), np.zeros(0, np.int64), (), ()))
