"""Images that a data set has twice: in train and test, or under two classes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from scenetrack.data.dataset import SceneDataset, Split


def in_train(dataset: SceneDataset) -> NDArray[np.bool_]:
    """Return whether the very bytes of each test image are also in train: bool [n_test]."""
    known = set(dataset.train.digests)
    return np.array([digest in known for digest in dataset.test.digests], np.bool_)


def in_two_classes(dataset: SceneDataset) -> list[tuple[str, ...]]:
    """Return the names CLASS/FILE of the images whose bytes stand in two classes, in groups."""
    names: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, set[int]] = defaultdict(set)
    for split in (dataset.train, dataset.test):
        for digest, name, label in zip(split.digests, split.names, split.labels, strict=True):
            names[digest].append(name)
            labels[digest].add(int(label))
    return [tuple(names[digest]) for digest, found in labels.items() if len(found) > 1]


def without_copies(train: Split, test: Split) -> tuple[Split, list[tuple[str, str]]]:
    """Leave out the training images whose very bytes are also in test.

    Returns:
        The other training images, and the names of those left out, each with its test image's.
    """
    tested = dict(zip(test.digests, test.names, strict=True))
    kept = [place for place, digest in enumerate(train.digests) if digest not in tested]
    left_out = [
        (name, tested[digest])
        for name, digest in zip(train.names, train.digests, strict=True)
        if digest in tested
    ]
    return train.subset(kept), left_out
