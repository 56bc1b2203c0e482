"""Dense SIFT as an estimator: what the stage's graph gives, and scikit-learn's own habits."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from scenetrack import DenseSift, InputError
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.errors import ConfigError
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


def test_a_copy_gives_the_same() -> None:
    # Copies go through __getstate__ and __setstate__, as for the processes of joblib.
    sift = DenseSift(step=8, bin_sizes=(4,)).fit(IMAGES)
    assert np.array_equal(copy.deepcopy(sift).transform(IMAGES), sift.transform(IMAGES))
    with pytest.raises(NotFittedError):
        copy.deepcopy(DenseSift()).transform(IMAGES)


def test_no_images_and_lists_of_images() -> None:
    sift = DenseSift(step=8, bin_sizes=[4]).fit(list(IMAGES))
    assert sift.transform(IMAGES[:0]).shape == (0, len(sift.positions_), 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0}, "step must be at least 1"),
        ({"colour": "rgb"}, "colour must be one of: grey, opponent"),
        ({"smoothing": -1.0}, "smoothing must be at least 0"),
        ({"bin_sizes": ()}, "bin_sizes must give at least one size"),
        ({"bin_sizes": (16,)}, "must fit into the image"),
    ],
)
def test_parameters_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenseSift(**settings).fit(IMAGES)
