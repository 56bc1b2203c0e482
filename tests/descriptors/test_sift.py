"""Dense SIFT against loops over points and bins, against OpenCV, and properties for any image."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scenetrack.data.demo.scenes import draw_scene
from scenetrack.descriptors.sift import STEPS_PER_UNIT, SiftGrid, sift_graph
from scenetrack.errors import ConfigError
from scenetrack.graphs.runtime import OnnxModel

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
# Bins of 3 px are weighted pixel by pixel, those of 4 px and more by pairs of pixels.
SINGLE, PAIRS = SiftGrid(24, 5, (3,), "grey", 1.0), SiftGrid(64, 5, (4, 6), "grey", 1.0)


def described(grid: SiftGrid, images: Bytes) -> Bytes:
    model = OnnxModel(sift_graph(grid, {}).SerializeToString(), device="cpu", threads=1)
    return model.run(images=images)["descriptors"]


def scene(name: str, size: int) -> Bytes:
    """The middle of a drawn scene: uint8 [size, size, 3]."""
    first = (256 - size) // 2
    return np.asarray(draw_scene(name, 0))[first : first + size, first : first + size]


def noise(size: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def parts_of(right: Floats, down: Floats, lowe: bool) -> Floats:
    """Share of the gradients in each direction, by their angle: [8, S, S]."""
    angle = np.arctan2(down, right) % (2 * np.pi)
    before = np.floor(angle / (np.pi / 4)).astype(int) % 8
    beyond = angle - before * np.pi / 4
    length = np.hypot(right, down)
    if lowe:
        second = length * beyond / (np.pi / 4)
        first = length - second
    else:  # the law of sines in the triangle of the gradient and its two parts
        second = length * np.sin(beyond) / np.sin(np.pi / 4)
        first = length * np.sin(np.pi / 4 - beyond) / np.sin(np.pi / 4)
    k = np.arange(8)[:, None, None]
    return np.where(before == k, first, 0) + np.where((before + 1) % 8 == k, second, 0)


def reference(grid: SiftGrid, image: Bytes, lowe: bool = False) -> Floats:
    """Descriptors [n, 128] of an image, with a weight for each pixel, point and bin."""
    blurred = gaussian_filter(
        image @ np.array([0.299, 0.587, 0.114]), grid.smoothing, mode="mirror"
    )
    right, down = np.zeros_like(blurred), np.zeros_like(blurred)
    right[1:-1, 1:-1] = blurred[1:-1, 2:] - blurred[1:-1, :-2]
    down[1:-1, 1:-1] = blurred[2:, 1:-1] - blurred[:-2, 1:-1]
    maps, (y, x), rows = parts_of(right, down, lowe), np.indices(blurred.shape), []
    for b in grid.bin_sizes:
        for cy in grid.centres(b):
            for cx in grid.centres(b):
                window = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * (2 * b) ** 2))
                histogram = np.zeros((4, 8, 4))
                for i in range(4):
                    for j in range(4):
                        tall = np.maximum(0, 1 - abs(y - cy - (i - 1.5) * b) / b)
                        wide = np.maximum(0, 1 - abs(x - cx - (j - 1.5) * b) / b)
                        histogram[i, :, j] = (maps * window * tall * wide).sum((1, 2))
                rows.append(histogram.ravel())
    unit = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = np.minimum(unit, 0.2)
    return np.sqrt(clipped / clipped.sum(1, keepdims=True))


def cosines(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> Floats:
    left, right = found.astype(float), wanted.astype(float)
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return np.asarray((left * right).sum(-1) / norms)


def steps_apart(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> int:
    return int(np.abs(found.astype(int) - wanted.astype(int)).max())


@pytest.mark.parametrize("size", [24, 25])
@pytest.mark.parametrize("draw", [noise, lambda size: scene("street", size)])
def test_agrees_with_loops_to_a_step(size: int, draw: Callable[[int], Bytes]) -> None:
    grid, image = SiftGrid(size, 5, (2, 3), "grey", 1.0), draw(size)
    wanted = np.minimum(np.rint(STEPS_PER_UNIT * reference(grid, image)), 255)
    assert steps_apart(described(grid, image[None])[0], wanted) <= 1


@pytest.mark.parametrize("size", [64, 65])
def test_pairs_of_pixels_hardly_differ_from_pixels(size: int) -> None:
    grid = SiftGrid(size, 7, (4, 6, 8), "grey", 1.52)
    assert grid.pace == 2
    for name in ("street", "forest"):
        image = scene(name, size)
        alike = cosines(described(grid, image[None])[0], reference(grid, image))
        assert np.quantile(alike, 0.01) > 0.996
        assert alike.mean() > 0.999


def test_parts_of_the_vector_hardly_differ_from_lowes_shares_of_its_length() -> None:
    image = scene("street", 24)
    alike = cosines(reference(SINGLE, image), reference(SINGLE, image, lowe=True))
    assert 0.999 < alike.min() < 0.999999


def opencv(grid: SiftGrid, grey: Bytes) -> Floats:
    """Square-rooted, its directions turned clockwise from the right as ours: [n, 128]."""
    points = [
        # Its bins are three times half the size of a key point.
        cv2.KeyPoint(float(x), float(y), b / 1.5, 0.0)
        for b in grid.bin_sizes
        for y in grid.centres(b)
        for x in grid.centres(b)
    ]
    _, found = cv2.SIFT_create().compute(grey, points)
    turned = np.roll(found.reshape(-1, 4, 4, 8)[..., ::-1], 1, -1).transpose(0, 1, 3, 2)
    flat = turned.reshape(-1, 128).astype(float)
    return np.sqrt(flat / np.maximum(flat.sum(1, keepdims=True), 1))


@pytest.mark.parametrize("name", ["street", "forest", "tallbuilding"])
def test_agrees_with_opencv(name: str) -> None:
    grid = SiftGrid(128, 8, (4, 6, 8, 10), "grey", 1.52)
    grey = cv2.cvtColor(scene(name, 128), cv2.COLOR_RGB2GRAY)
    found = described(grid, np.repeat(grey[..., None], 3, -1)[None])[0].astype(float)
    wanted = opencv(grid, grey)
    seen = found.any(1) & wanted.any(1)
    # OpenCV's bytes before the root are coarse: what they round away is not compared.
    alike = cosines(found[seen] ** 2, wanted[seen] ** 2)
    assert seen.mean() > 0.9
    assert alike.mean() > 0.999
    assert np.quantile(alike, 0.01) > 0.995


@pytest.mark.parametrize("direction", range(8))
def test_a_slope_has_one_direction(direction: int) -> None:
    along = np.rint(np.sqrt(2) * np.exp(1j * direction * np.pi / 4))
    grid = SiftGrid(24, 5, (3,), "grey", 0.0)
    y, x = np.indices((24, 24)) - 12
    slope = np.uint8(128 + 2 * (along.real * x + along.imag * y))
    found = described(grid, np.repeat(slope[..., None], 3, -1)[None])[0].reshape(-1, 4, 8, 4)
    remaining = np.delete(found, direction, axis=2)
    assert found[:, :, direction].min() > 0
    assert remaining.max() == 0


@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    name=st.sampled_from(["grey", "opponent"]),
    bin_size=st.sampled_from([2, 4]),
)
def test_a_flat_image_has_empty_descriptors(
    colour: tuple[int, int, int], name: str, bin_size: int
) -> None:
    grid = SiftGrid(40, 11, (bin_size,), name, 1.52)
    assert described(grid, np.full((1, 40, 40, 3), colour, np.uint8)).max() == 0


def test_an_edge_of_one_grey_level_is_seen() -> None:
    image = np.full((1, 64, 64, 3), 200, np.uint8)
    image[:, :, 32:] = 201
    across = np.abs(PAIRS.positions[:, 1] - 0.5) < 4 / 64
    found = described(PAIRS, image)[0, across].reshape(-1, 4, 8, 4)
    assert found[:, :, 0].max(axis=(1, 2)).min() > 100
    assert np.delete(found, 0, axis=2).max() <= 1


@given(offset=st.integers(-60, 60), seed=st.integers(0, 99))
def test_brightness_changes_nothing(offset: int, seed: int) -> None:
    image = 64 + noise(24, seed) // 2
    found = described(SINGLE, np.stack([image, np.uint8(image.astype(int) + offset)]))
    assert steps_apart(found[0], found[1]) <= 1


@pytest.mark.parametrize("grid", [SINGLE, PAIRS])
def test_contrast_changes_nothing(grid: SiftGrid) -> None:
    image = noise(grid.image_size) // 4
    found = described(grid, np.stack([image, 4 * image]))
    assert steps_apart(found[0], found[1]) <= 1


def test_a_mirrored_image_has_mirrored_descriptors() -> None:
    # The grid is its own mirror image: first and last centre are as far from the sides.
    grid = SiftGrid(64, 5, (4,), "grey", 1.52)
    centres = grid.centres(4)
    np.testing.assert_array_equal(63 - centres[::-1], centres)
    image, points = scene("street", 64), len(centres)
    found = described(grid, np.stack([image, image[:, ::-1]]))
    found = found.reshape(2, points, points, 4, 8, 4)
    turned = found[1][:, ::-1, :, :, ::-1]  # columns of points, columns of bins
    mirrored = turned[:, :, :, (4 - np.arange(8)) % 8]
    assert steps_apart(found[0], mirrored) <= 1


def test_a_transposed_image_has_transposed_descriptors() -> None:
    image = scene("forest", 64)
    found = described(PAIRS, np.stack([image, image.transpose(1, 0, 2)]))
    points = len(PAIRS.centres(4))
    first, second = found[:, : points**2].reshape(2, points, points, 4, 8, 4)
    swapped = second.transpose(1, 0, 4, 3, 2)[:, :, :, (2 - np.arange(8)) % 8]
    assert steps_apart(first, swapped) <= 1


@pytest.mark.parametrize("colour", ["grey", "opponent"])
def test_images_of_a_batch_do_not_meet(colour: str) -> None:
    grid = SiftGrid(64, 9, (4, 6), colour, 1.52)
    images = np.stack([noise(64), scene("coast", 64), scene("street", 64)])
    together = described(grid, images)
    assert together.shape == (3, len(grid.positions), grid.width)
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(described(grid, image[None])[0], found)


def test_opponent_colours_of_a_grey_image_are_empty_but_for_its_brightness() -> None:
    image = np.repeat(noise(64)[..., :1], 3, -1)[None]
    opponent = described(SiftGrid(64, 5, (4, 6), "opponent", 1.0), image)[0].reshape(-1, 3, 128)
    assert opponent[:, :2].max() == 0
    assert steps_apart(opponent[:, 2], described(PAIRS, image)[0]) <= 1


def test_opponent_colours_see_an_edge_between_equally_bright_colours() -> None:
    image = np.full((1, 64, 64, 3), (200, 100, 50), np.uint8)
    image[:, :, 32:] = (100, 200, 50)
    grid = SiftGrid(64, 5, (4,), "opponent", 1.0)
    across = np.abs(grid.positions[:, 1] - 0.5) < 4 / 64
    found = described(grid, image)[0, across].reshape(-1, 3, 128)
    red_green, yellow_blue, brightness = found.swapaxes(0, 1)
    assert red_green.max(axis=1).min() > 100
    assert yellow_blue.max() == brightness.max() == 0


def test_centres_and_positions() -> None:
    grid = SiftGrid(20, 6, (2, 4), "grey", 0.0)
    # Room of 12 and of 4 px for the centres: 3 and 1 fit in, the second in the middle.
    np.testing.assert_array_equal(grid.centres(2), [4, 10, 16])
    np.testing.assert_array_equal(grid.centres(4), [10])
    assert grid.positions.shape == (10, 2)
    np.testing.assert_allclose(grid.positions[1], [4.5 / 20, 10.5 / 20])
    np.testing.assert_allclose(grid.positions[9], [10.5 / 20, 10.5 / 20])


def test_pooled_weights_are_those_of_least_squares() -> None:
    pixels = np.arange(1, 63)
    alike = np.exp(-np.abs(pixels[:, None] - pixels))
    wanted = PAIRS.pixel_weights(4)[1, 3, pixels]

    def error(pooled: NDArray[np.floating]) -> float:
        apart = wanted - np.repeat(pooled, 2)
        return float(apart @ alike @ apart)

    found = PAIRS.weights(4)[1, 3].astype(float)
    least = error(found)
    for cell in range(len(found)):
        for change in (-1e-3, 1e-3):
            assert error(found + change * (np.arange(len(found)) == cell)) > least
    assert least < 0.95 * error(wanted.reshape(-1, 2).mean(1))


def test_no_weight_is_so_small_that_processors_stumble() -> None:
    for grid in (SINGLE, PAIRS, SiftGrid(256, 6, (4, 10), "grey", 1.52)):
        for bin_size in grid.bin_sizes:
            used = np.abs(grid.weights(bin_size))
            assert used[used > 0].min() >= 1e-6


def test_the_graph_tells_its_geometry() -> None:
    model = sift_graph(SiftGrid(64, 5, (4, 6), "opponent", 1.5), {"source": "a test"})
    stored = {item.key: item.value for item in model.metadata_props}
    # 32 values for each of 4,096 pixels and 7 for each of 128 (100 + 81) of a descriptor.
    workspace = 4 * 3 * (32 * 64**2 + 7 * 128 * 181)
    assert stored == {
        "source": "a test",
        "image_size": "64",
        "step": "5",
        "bin_sizes": "[4, 6]",
        "colour": "opponent",
        "smoothing": "1.5",
        "workspace_bytes": str(workspace),
    }


def test_bins_must_fit_into_the_image() -> None:
    assert len(SiftGrid(40, 6, (10,), "grey", 1.0).positions) == 1
    with pytest.raises(ConfigError, match=r"Received: bins of 10 px in an image of 39 px"):
        SiftGrid(39, 6, (4, 10), "grey", 1.0)


def test_a_blur_wider_than_the_image_mirrors_no_farther_than_its_length() -> None:
    grid = SiftGrid(16, 4, (2,), "grey", 20.0)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    actual = OnnxModel(sift_graph(grid, {}).SerializeToString()).run(images=image)["descriptors"]
    assert actual.shape == (1, len(grid.positions), 128)
