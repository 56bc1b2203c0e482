"""Patch grids and patch batches against hand-computed positions and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.data.patches import PatchBatches, PatchGrid, sample_patches
from scenetrack.errors import ConfigError


def coded_images(count: int, size: int) -> np.ndarray:
    """uint8 [count, size, size, 3] whose pixels tell their image, row and column."""
    image, row, column = np.mgrid[:count, :size, :size]
    return np.stack([image, row, column], axis=-1).astype(np.uint8)


def batches(**changed: object) -> PatchBatches:
    settings: dict[str, object] = {
        "images": [coded_images(5, 9)],
        "labels": np.array([2, 0, 1, 0, 2]),
        "owners": np.array([0, 2, 4]),
        "patch_size": 4,
        "per_image": 7,
        "stride": 0,
        "flip": False,
        "batch_size": 6,
        "seed": 3,
    }
    return PatchBatches(**(settings | changed))  # type: ignore[arg-type]


def joined(source: PatchBatches, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    patches, labels = zip(*source.epoch(epoch), strict=True)
    return np.concatenate(patches), np.concatenate(labels)


class TestGrid:
    def test_positions_by_hand(self) -> None:
        grid = PatchGrid(image_size=10, patch_size=4, stride=3)
        assert (grid.side, grid.count) == (3, 9)
        expected = [[y, x] for y in (0, 3, 6) for x in (0, 3, 6)]
        assert grid.positions.tolist() == expected

    def test_the_rest_beyond_the_last_stride_is_left_out(self) -> None:
        assert PatchGrid(11, 4, 3).positions.max() == 6
        assert PatchGrid(4, 4, 100).positions.tolist() == [[0, 0]]

    @given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
    def test_extract_is_a_plain_loop(self, size: int, patch: int, stride: int) -> None:
        if patch > size:
            with pytest.raises(ConfigError, match="a patch must fit into the image"):
                PatchGrid(size, patch, stride)
            return
        grid, images = PatchGrid(size, patch, stride), coded_images(2, size)
        corners = range(0, size - patch + 1, stride)
        expected = [
            [image[y : y + patch, x : x + patch] for y in corners for x in corners]
            for image in images
        ]
        assert np.array_equal(grid.extract(images), expected)
        assert grid.positions.tolist() == [[y, x] for y in corners for x in corners]

    @pytest.mark.parametrize("sizes", [(8, 4, 0), (8, 0, 4), (0, 0, 1), (8, -1, 4)])
    def test_sizes_must_be_positive(self, sizes: tuple[int, int, int]) -> None:
        with pytest.raises(ConfigError, match="must be positive"):
            PatchGrid(*sizes)


class TestBatches:
    def test_counts(self) -> None:
        source = batches()
        assert (len(source), source.steps) == (21, 4)
        assert [len(labels) for _, labels in source.epoch(0)] == [6, 6, 6, 3]
        grid = batches(stride=5)
        assert (len(grid), grid.steps) == (12, 2)

    def test_each_owner_gives_its_share_with_its_label(self) -> None:
        source = batches()
        patches, labels = joined(source)
        assert patches.shape == (21, 4, 4, 3)
        assert patches.dtype == np.uint8
        owners = patches[:, 0, 0, 0]
        assert np.bincount(owners, minlength=5).tolist() == [7, 0, 7, 0, 7]
        assert np.array_equal(labels, source.labels[owners])

    def test_patches_are_cut_out_whole(self) -> None:
        patches, _ = joined(batches())
        for patch in patches:
            owner, row, column = patch[0, 0]
            expected = coded_images(5, 9)[owner, row : row + 4, column : column + 4]
            assert np.array_equal(patch, expected)

    def test_random_corners_reach_every_place(self) -> None:
        patches, _ = joined(batches(per_image=400))
        corners = {tuple(corner) for corner in patches[:, 0, 0, 1:].tolist()}
        assert corners == {(y, x) for y in range(6) for x in range(6)}

    def test_grid_gives_each_position_once(self) -> None:
        patches, _ = joined(batches(stride=5))
        found = sorted(map(tuple, patches[:, 0, 0].tolist()))
        assert found == [(image, y, x) for image in (0, 2, 4) for y in (0, 5) for x in (0, 5)]

    def test_flip_mirrors_about_half_left_to_right(self) -> None:
        plain, _ = joined(batches(per_image=100))
        flipped, _ = joined(batches(per_image=100, flip=True))
        mirrored = flipped[:, 0, 0, 2] > flipped[:, 0, -1, 2]
        assert 0.4 < mirrored.mean() < 0.6
        assert plain[:, 0, 0, 2].max() <= 5
        for patch in flipped[mirrored]:
            owner, row, last = patch[0, 0]
            expected = coded_images(5, 9)[owner, row : row + 4, last - 3 : last + 1, :][:, ::-1]
            assert np.array_equal(patch, expected)

    def test_an_epoch_can_be_drawn_again_and_differs_from_others(self) -> None:
        first, labels = joined(batches(flip=True), 4)
        again, labels_again = joined(batches(flip=True), 4)
        assert np.array_equal(first, again)
        assert np.array_equal(labels, labels_again)
        assert not np.array_equal(first, joined(batches(flip=True), 5)[0])
        assert not np.array_equal(first, joined(batches(flip=True, seed=4), 4)[0])


class TestScales:
    """The same images at 9 and at 6 px: the red value of the smaller ones is 100 more."""

    IMAGES = (coded_images(5, 9), coded_images(5, 6) + np.array([100, 0, 0], np.uint8))

    def test_random_patches_are_of_each_size_alike_and_cut_out_whole(self) -> None:
        patches, labels = joined(batches(images=self.IMAGES, per_image=200))
        owners = patches[:, 0, 0, 0].astype(int)
        small = owners >= 100
        assert 0.4 < small.mean() < 0.6
        assert np.bincount(owners % 100, minlength=5).tolist() == [200, 0, 200, 0, 200]
        assert np.array_equal(labels, batches().labels[owners % 100])
        assert {tuple(corner) for corner in patches[small, 0, 0, 1:].tolist()} == {
            (y, x) for y in range(3) for x in range(3)
        }
        for patch in patches:
            owner, row, column = patch[0, 0]
            source = self.IMAGES[int(owner >= 100)][owner % 100]
            assert np.array_equal(patch, source[row : row + 4, column : column + 4])

    def test_a_grid_is_laid_over_each_size(self) -> None:
        source = batches(images=self.IMAGES, stride=5)
        patches, _ = joined(source)
        assert len(source) == len(patches) == 3 * (4 + 1)
        found = sorted(map(tuple, patches[:, 0, 0].tolist()))
        large = [(image, y, x) for image in (0, 2, 4) for y in (0, 5) for x in (0, 5)]
        assert found == [*large, (100, 0, 0), (102, 0, 0), (104, 0, 0)]

    def test_a_sample_is_of_each_size_alike(self) -> None:
        patches = sample_patches(self.IMAGES, 4, 400, seed=0)
        assert 0.4 < np.mean(patches[:, 0, 0, 0] >= 100) < 0.6


class TestSample:
    def test_from_owners_only_anywhere_in_the_image(self) -> None:
        patches = sample_patches([coded_images(5, 9)], 4, 500, seed=0, owners=np.array([1, 3]))
        assert patches.shape == (500, 4, 4, 3)
        assert set(patches[:, 0, 0, 0]) == {1, 3}
        assert set(patches[:, 0, 0, 1]) == set(patches[:, 0, 0, 2]) == set(range(6))
        for patch in patches[:20]:
            owner, row, column = patch[0, 0]
            expected = coded_images(5, 9)[owner, row : row + 4, column : column + 4]
            assert np.array_equal(patch, expected)

    def test_seed_decides(self) -> None:
        images = coded_images(5, 9)
        first = sample_patches([images], 4, 50, seed=1)
        assert np.array_equal(first, sample_patches([images], 4, 50, seed=1))
        assert not np.array_equal(first, sample_patches([images], 4, 50, seed=2))
