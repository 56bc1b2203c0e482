"""Data augmentation of training images."""

from __future__ import annotations

import numpy as np
import pytest

from scenetrack.config import AUGMENTATIONS
from scenetrack.data.augment import BRIGHTNESS, SHIFT, ImageBatches, augment


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (200, 10, 10, 3), np.uint8)


def ramp(count: int, size: int) -> np.ndarray:
    """Images whose red says the column and green the row."""
    rows, columns = np.mgrid[:size, :size]
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return np.repeat(image[None], count, axis=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_nothing_chosen_changes_nothing(images: np.ndarray) -> None:
    assert np.array_equal(augment(images, (), rng()), images)


def test_flip_is_the_image_or_its_mirror_image(images: np.ndarray) -> None:
    changed = augment(images, ("flip",), rng())
    same = (changed == images).all(axis=(1, 2, 3))
    mirrored = (changed == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert np.array_equal(same, ~mirrored)
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_moves_whole_pixels_and_mirrors_the_rim() -> None:
    size = 20
    changed = augment(ramp(100, size), ("shift",), rng())
    most = round(SHIFT * size)
    shifts = set()
    for image in changed:
        move_x = int(image[0, most, 0]) - most
        move_y = int(image[most, 0, 1]) - most
        padded = np.pad(ramp(1, size)[0], ((most, most), (most, most), (0, 0)), "symmetric")
        top, left = most + move_y, most + move_x
        assert np.array_equal(image, padded[top : top + size, left : left + size])
        shifts.add((move_y, move_x))
    moved = set(range(-most, most + 1))
    assert {y for y, _ in shifts} == {x for _, x in shifts} == moved


def test_zoom_keeps_the_middle_and_scales_the_distance_from_it() -> None:
    changed = augment(ramp(100, 21), ("zoom",), rng())
    assert (changed[:, 10, 10, :2] == 10).all()
    reach = changed[:, 10, 16, 0].astype(int) - 10
    # 6 px from the middle show what was at 6 * (0.85 to 1.15), to the nearest pixel.
    assert set(reach.tolist()) == {5, 6, 7}


def test_brightness_multiplies_each_image_by_one_gain() -> None:
    flat = np.full((100, 4, 4, 3), 200, np.uint8)
    changed = augment(flat, ("brightness",), rng())
    assert (changed == changed[:, :1, :1, :1]).all()
    values = changed[:, 0, 0, 0].astype(int)
    assert values.min() >= int(200 * (1 - BRIGHTNESS))
    assert values.max() <= 200 * (1 + BRIGHTNESS)
    assert len(set(values.tolist())) > 20
    assert augment(np.full_like(flat, 255), ("brightness",), rng()).max() == 255


def test_all_at_once_keep_shape_and_type(images: np.ndarray) -> None:
    before = images.copy()
    changed = augment(images, AUGMENTATIONS, rng())
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
    assert np.array_equal(images, before)
    assert np.array_equal(changed, augment(images, AUGMENTATIONS, rng()))


class TestBatches:
    @staticmethod
    def source(seed: int = 0) -> ImageBatches:
        images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones(
            (1, 4, 4, 3), np.uint8
        )
        labels = np.arange(10) * 10
        return ImageBatches(images, labels, np.array([1, 3, 5, 7, 9]), ("flip",), 2, seed)

    def test_each_chosen_image_once_with_its_label(self) -> None:
        source = self.source()
        assert (len(source), source.steps) == (5, 2)
        parts = list(source.epoch(0))
        assert [len(labels) for _, labels in parts] == [2, 3]
        seen = np.concatenate([images[:, 0, 0, 0] for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        assert sorted(seen.tolist()) == [1, 3, 5, 7, 9]
        assert np.array_equal(labels, seen * 10)

    def test_order_follows_epoch_and_seed(self) -> None:
        def order(seed: int, epoch: int) -> list[int]:
            return [int(k) for _, labels in self.source(seed).epoch(epoch) for k in labels]

        assert order(0, 3) == order(0, 3)
        assert len({tuple(order(0, epoch)) for epoch in range(8)}) > 3
        assert len({tuple(order(seed, 0)) for seed in range(8)}) > 3
