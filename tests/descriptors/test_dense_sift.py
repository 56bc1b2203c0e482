"""Dense SIFT as an estimator: what the stage's graph gives, and scikit-learn's own habits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

from scenetrack import BagOfWords, DenseSift, FisherVector, InputError, Vlad
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.graphs.runtime import OnnxModel

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3)).astype(np.uint8)


def test_it_gives_what_the_graph_gives() -> None:
    sift = DenseSift(step=8, bin_sizes=(4, 6), smoothing=1.0)
    found = sift.fit_transform(IMAGES)
    grid = SiftGrid(48, 8, (4, 6), "grey", 1.0)
    expected = OnnxModel(sift_graph(grid, {}).SerializeToString()).predict(IMAGES)["descriptors"]
    assert np.array_equal(found, expected.reshape(found.shape))
    assert found.shape == (3, len(grid.positions), 128)
    assert np.array_equal(sift.positions_, grid.positions)


def test_unfitted_and_other_arrays_are_refused() -> None:
    with pytest.raises(NotFittedError):
        DenseSift().transform(IMAGES)
    with pytest.raises(InputError, match="Received: float64"):
        DenseSift().fit(IMAGES.astype(float))
    with pytest.raises(InputError, match=r"\[3, 48, 40, 3\]"):
        DenseSift().fit(IMAGES[:, :, :40])


# Checks that give two-dimensional floats of any kind do not apply: images have four axes, and the
# encoders take the descriptors of several images, of three axes.
@pytest.mark.parametrize("kind", [DenseSift, BagOfWords, Vlad, FisherVector])
def test_estimators_keep_scikit_learns_habits(kind: type) -> None:
    check_parameters_default_constructible(kind.__name__, kind())
    check_no_attributes_set_in_init(kind.__name__, kind())
    estimator = kind()
    names = list(estimator.get_params())
    changed = clone(estimator).set_params(**{names[0]: 7})
    assert changed.get_params()[names[0]] == 7
    assert repr(changed) == f"{kind.__name__}({names[0]}=7)"
