"""Patches of images: regular grids, random samples and shuffled training batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scenetrack.data.batches import batch_count, batch_slices
from scenetrack.errors import ConfigError


@dataclass(frozen=True)
class PatchGrid:
    """Grid of square patches, ``patch_size`` px wide every ``stride`` px, all inside the image.

    All sizes are in pixels of the resized, square image.

    Raises:
        ConfigError: the patch is larger than the image, or a size is not positive.
    """

    image_size: int
    patch_size: int
    stride: int

    def __post_init__(self) -> None:
        if min(self.image_size, self.patch_size, self.stride) < 1:
            raise ConfigError(f"sizes and stride must be positive. Received: {self}")
        if self.patch_size > self.image_size:
            raise ConfigError(
                f"a patch must fit into the image. Received: patch_size={self.patch_size}, "
                f"image_size={self.image_size}"
            )

    @property
    def side(self) -> int:
        """Number of patches along one side of the grid."""
        return (self.image_size - self.patch_size) // self.stride + 1

    @property
    def count(self) -> int:
        """Number of patches of an image."""
        return self.side**2

    @property
    def positions(self) -> np.ndarray:
        """Top-left corners (y, x) in pixels, row by row: int64 [count, 2]."""
        corners = np.arange(self.side) * self.stride
        return np.stack(np.meshgrid(corners, corners, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def centres(self) -> np.ndarray:
        """Centres (y, x) of the patches relative to the image, in [0, 1]: float32 [count, 2]."""
        centres = self.positions + self.patch_size / 2
        return np.asarray(centres / self.image_size, np.float32)

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Return every patch of every image: uint8 [N, S, S, 3] -> [N, count, P, P, 3]."""
        patches = grid_patches(images, self.patch_size, self.stride)
        return patches.reshape(len(images), self.count, self.patch_size, self.patch_size, 3)


def grid_patches(images: np.ndarray, patch_size: int, stride: int) -> np.ndarray:
    """Return the patches of images of any size: uint8 [N, H, W, 3] -> [N, grid_h, grid_w, P, P, 3].

    The grid has (H - P) // stride + 1 rows and (W - P) // stride + 1 columns. The result is a view.
    """
    windows = _windows(images, patch_size)[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3)


@dataclass(frozen=True)
class PatchBatches:
    """Shuffled training patches of labelled images, drawn anew for each epoch.

    Only one batch of patches exists at a time, so memory does not grow with the images.

    Args:
        images: the same images at several sizes, each uint8 [N, S, S, 3], arrays or memory maps.
            A random patch has one of the sizes with equal probability; a grid covers each size.
        labels: labels int64 [N] of the images; a patch has the label of its image.
        owners: indices int64 [n] of the images to take patches from.
        patch_size: side of a patch in pixels.
        per_image: number of patches drawn from an image in an epoch if ``stride`` is 0.
        stride: distance of grid patches in pixels; 0 draws positions at random instead.
        flip: mirror half of the patches left to right.
        batch_size: number of patches in a batch.
        seed: seed that determines the draw together with the epoch, so that a resumed training
            sees the same patches.
    """

    images: Sequence[np.ndarray]
    labels: np.ndarray
    owners: np.ndarray
    patch_size: int
    per_image: int
    stride: int
    flip: bool
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Number of patches in an epoch."""
        each = sum(grid.count for grid in self._grids) if self.stride else self.per_image
        return len(self.owners) * each

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return batch_count(len(self), self.batch_size)

    @property
    def _grids(self) -> list[PatchGrid]:
        sizes = [scaled.shape[1] for scaled in self.images]
        return [PatchGrid(size, self.patch_size, self.stride or 1) for size in sizes]

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of patches uint8 [B, P, P, 3] and labels int64 [B]."""
        rng = np.random.default_rng([self.seed, epoch])
        owners, scales, corners = self._draw(rng)
        mirrored = rng.random(len(owners)) < 0.5 if self.flip else np.zeros(len(owners), bool)
        order = rng.permutation(len(owners))
        windows = [_windows(images, self.patch_size) for images in self.images]
        for part in batch_slices(len(order), self.batch_size):
            chosen = order[part]
            patches = _cut(windows, owners[chosen], scales[chosen], corners[chosen])
            flipped = mirrored[chosen]
            patches[flipped] = patches[flipped, :, ::-1]
            yield patches, self.labels[owners[chosen]]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw each patch: image index and size index int64 [M], top-left corner int64 [M, 2]."""
        count = len(self.owners)
        if self.stride:
            positions = np.concatenate([grid.positions for grid in self._grids])
            scales = np.repeat(np.arange(len(self.images)), [grid.count for grid in self._grids])
            owners = np.repeat(self.owners, len(positions))
            return owners, np.tile(scales, count), np.tile(positions, (count, 1))
        scales = rng.integers(len(self.images), size=count * self.per_image)
        sizes = np.array([images.shape[1] for images in self.images])[scales]
        corners = rng.integers((sizes - self.patch_size + 1)[:, None], size=(len(scales), 2))
        return np.repeat(self.owners, self.per_image), scales, corners


def _cut(
    windows: Sequence[np.ndarray], owners: np.ndarray, scales: np.ndarray, corners: np.ndarray
) -> np.ndarray:
    """Cut patches uint8 [B, P, P, 3] out of images at several sizes."""
    size = windows[0].shape[-1]
    patches = np.empty((len(owners), size, size, 3), np.uint8)
    for scale, views in enumerate(windows):
        chosen = scales == scale
        rows, columns = corners[chosen].T
        patches[chosen] = views[owners[chosen], rows, columns].transpose(0, 2, 3, 1)
    return patches


def sample_patches(
    images: Sequence[np.ndarray],
    patch_size: int,
    count: int,
    *,
    seed: int,
    owners: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``count`` patches at random positions of random images: uint8 [count, P, P, 3].

    Args:
        images: the same images at several sizes, each uint8 [N, S, S, 3].
        patch_size: side P of a patch in pixels.
        count: number of patches.
        seed: seed of the draw.
        owners: indices int64 [n] of the images to draw from; None draws from all.
    """
    rng = np.random.default_rng(seed)
    allowed = np.arange(len(images[0])) if owners is None else owners
    chosen = np.sort(rng.choice(allowed, size=count))  # sorted for memory maps
    scales = rng.integers(len(images), size=count)
    sizes = np.array([scaled.shape[1] for scaled in images])[scales]
    corners = rng.integers((sizes - patch_size + 1)[:, None], size=(count, 2))
    return _cut([_windows(scaled, patch_size) for scaled in images], chosen, scales, corners)


def _windows(images: np.ndarray, patch_size: int) -> np.ndarray:
    """Return a view of all patches at stride 1: [N, y, x, 3, P, P]."""
    return np.lib.stride_tricks.sliding_window_view(images, (patch_size, patch_size), axis=(1, 2))
