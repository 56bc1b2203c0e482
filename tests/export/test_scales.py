"""A dense network at several sizes in one graph, against the same network on resized images."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from scenetrack.config import PatchBowConfig
from scenetrack.data.patches import PatchGrid
from scenetrack.export.dense import build_dense
from scenetrack.export.scales import at_scales, positions
from scenetrack.export.truncate import joined_output
from scenetrack.graphs.digest import model_digest
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.registry import build_network

GRIDS = [PatchGrid(size, 6, 3) for size in (24, 18, 9)]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    settings = {"image_size": 24, "patch_size": 6, "whitening": 0, "mean_colour": False}
    return build_network(PatchBowConfig(hidden=(200, 100), **settings), 3)


def dense_graph(network: keras.Model, form: str):  # type: ignore[no-untyped-def]
    tensors = {
        "descriptors": joined_output(network, ["hidden_1", "hidden_2"]),
        "logits": network.get_layer("logits").output,
    }
    return build_dense(network, tensors, 3, form, {"stride": "3"})


@pytest.mark.parametrize("form", ["patches", "conv"])
def test_is_the_network_on_the_image_resized_by_pillow(network: keras.Model, form: str) -> None:
    dense = dense_graph(network, form)
    scaled = at_scales(dense, GRIDS, {"scaled_sizes": "[24, 18, 9]"})
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
    actual = OnnxModel(scaled.SerializeToString()).run(images=images)
    single = OnnxModel(dense.SerializeToString())
    start = 0
    for grid in GRIDS:
        side = (grid.image_size, grid.image_size)
        resized = [
            np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR))
            for image in images
        ]
        expected = single.run(images=np.stack(resized))
        part = slice(start, start + grid.count)
        for name, width in (("descriptors", 300), ("logits", 3)):
            rows = expected[name].reshape(5, grid.count, width)
            assert actual[name][:, part] == pytest.approx(rows, abs=1e-5)
        start = part.stop
    assert actual["descriptors"].shape == (5, start, 300)
    assert positions(GRIDS).shape == (start, 2)


def test_weights_are_stored_once(network: keras.Model) -> None:
    dense = dense_graph(network, "patches")
    alone, scaled = (
        len(model.SerializeToString()) for model in (dense, at_scales(dense, GRIDS, {}))
    )
    weights = 4 * network.count_params()
    assert alone > weights
    assert scaled < 2 * alone


def test_positions_are_middles_of_patches_relative_to_the_image() -> None:
    middles = positions([PatchGrid(8, 4, 4), PatchGrid(4, 4, 4)])
    assert middles.tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75], [0.5, 0.5]]


def test_joined_layers_are_their_outputs_side_by_side(network: keras.Model) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 6, 3), np.uint8)
    layers = [network.get_layer(name).output for name in ("hidden_2", "hidden_1")]
    joined = joined_output(network, ["hidden_2", "hidden_1"])
    model = keras.Model(network.inputs[0], [joined, *layers])
    together, *apart = (np.asarray(values) for values in model(images))
    assert np.array_equal(together, np.concatenate(apart, axis=1))


def test_the_digest_is_of_the_scales_too(network: keras.Model) -> None:
    dense = dense_graph(network, "patches")
    assert model_digest(at_scales(dense, GRIDS, {})) != model_digest(
        at_scales(dense, GRIDS[:2], {})
    )
