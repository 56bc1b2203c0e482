"""The graph's resize is Pillow's, bit for bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scenetrack.export.resize import resize_in_graph
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel


@cache
def model(size: int) -> OnnxModel:
    builder = GraphBuilder("resize")
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    resized = resize_in_graph(builder, images, size)
    builder.output("resized", resized, np.uint8, ["batch", size, size, 3])
    return OnnxModel(builder.build({}).SerializeToString(), device="cpu")


def pillow(image: np.ndarray, size: int) -> np.ndarray:
    # Pillow 13 turns the order of its two passes round for some tall images; width alone first
    # is the order of all versions before it.
    narrow = Image.fromarray(image).resize((size, len(image)), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((size, size), Image.Resampling.BILINEAR))


def check(images: np.ndarray, size: int) -> None:
    resized = model(size).run(images=images)["resized"]
    np.testing.assert_array_equal(resized, [pillow(image, size) for image in images])


lengths = st.one_of(st.integers(1, 40), st.integers(1, 400))


@settings(max_examples=60, deadline=None)
@given(
    lengths,
    lengths,
    st.sampled_from([1, 2, 7, 32, 33, 96, 128]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_size_up_and_down(height: int, width: int, size: int, stark: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    check(images // 128 * 255 if stark else images, size)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 300), (300, 1), (32, 64), (64, 32), (1000, 33)]
)
def test_edges(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    check(rng.integers(0, 256, (1, height, width, 3), np.uint8), 32)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_flat_images_stay_flat(value: int) -> None:
    images = np.full((1, 217, 131, 3), value, np.uint8)
    np.testing.assert_array_equal(model(96).run(images=images)["resized"], value)


def test_wide_images_are_as_one_call_of_any_pillow_makes_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 200, 3), np.uint8)
    once = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(model(32).run(images=image[None])["resized"][0], once)


def test_images_of_the_size_pass_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 33, 33, 3), np.uint8)
    np.testing.assert_array_equal(model(33).run(images=images)["resized"], images)


def test_no_images() -> None:
    assert model(7).run(images=np.zeros((0, 7, 7, 3), np.uint8))["resized"].shape == (0, 7, 7, 3)
