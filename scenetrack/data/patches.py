"""Patch-grid geometry, and patches cut from images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scenetrack.errors import ConfigError


@dataclass(frozen=True)
class PatchGrid:
    """Square patches of ``patch_size`` px every ``stride`` px that lie wholly in the image.

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
        """Patches along one side of the grid."""
        return (self.image_size - self.patch_size) // self.stride + 1

    @property
    def count(self) -> int:
        """Patches of one image."""
        return self.side**2

    @property
    def positions(self) -> np.ndarray:
        """Top-left corners (y, x) in pixels, row by row: int64 [count, 2]."""
        corners = np.arange(self.side) * self.stride
        return np.stack(np.meshgrid(corners, corners, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def centres(self) -> np.ndarray:
        """Middles (y, x) of the patches relative to the image, in [0, 1]: float32 [count, 2]."""
        middles = self.positions + self.patch_size / 2
        return np.asarray(middles / self.image_size, np.float32)

    def extract(self, images: np.ndarray) -> np.ndarray:
        """Every patch of every image: uint8 [N, S, S, 3] -> [N, count, P, P, 3]."""
        patches = grid_patches(images, self.patch_size, self.stride)
        return patches.reshape(len(images), self.count, self.patch_size, self.patch_size, 3)


def grid_patches(images: np.ndarray, patch_size: int, stride: int) -> np.ndarray:
    """Patches of images of any size: uint8 [N, H, W, 3] -> [N, grid_h, grid_w, P, P, 3].

    The grid has (H - P) // stride + 1 rows, and as many columns of W; nothing is copied.
    """
    windows = _windows(images, patch_size)[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3)


@dataclass(frozen=True)
class PatchBatches:
    """Shuffled training patches of labelled images, a fresh draw for every epoch.

    Only one batch of patches exists at a time, so memory does not grow with the images.

    Args:
        images: uint8 [N, S, S, 3], arrays or memory maps: the same images at several sizes. A
            random patch is of any of them alike; a grid is laid over each.
        labels: int64 [N], each patch taking its image's label.
        owners: int64 [n], the images to take patches from.
        patch_size: side in pixels.
        per_image: patches drawn from an image in an epoch, when ``stride`` is 0.
        stride: pixels between grid patches; 0 draws positions at random instead.
        flip: mirror half of the patches left to right.
        batch_size: patches in a batch.
        seed: with the epoch it determines the draw, so a resumed training sees the same patches.
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
        """Patches in an epoch."""
        each = sum(grid.count for grid in self._grids) if self.stride else self.per_image
        return len(self.owners) * each

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self) // self.batch_size)

    @property
    def _grids(self) -> list[PatchGrid]:
        return [
            PatchGrid(pixels.shape[1], self.patch_size, self.stride or 1) for pixels in self.images
        ]

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of patches uint8 [B, P, P, 3] and labels int64 [B]."""
        rng = np.random.default_rng([self.seed, epoch])
        owners, scales, corners = self._draw(rng)
        mirrored = rng.random(len(owners)) < 0.5 if self.flip else np.zeros(len(owners), bool)
        order = rng.permutation(len(owners))
        windows = [_windows(images, self.patch_size) for images in self.images]
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            patches = _cut(windows, owners[chosen], scales[chosen], corners[chosen])
            flipped = mirrored[chosen]
            patches[flipped] = patches[flipped, :, ::-1]
            yield patches, self.labels[owners[chosen]]

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each patch the image and its size's index, int64 [M], and its corner, int64 [M, 2]."""
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
    """Patches uint8 [B, P, P, 3] of images at several sizes."""
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
    """``count`` patches at random places of random images: uint8 [count, P, P, 3].

    Args:
        images: uint8 [N, S, S, 3], the same images at several sizes.
        patch_size: side P in pixels.
        count: how many patches.
        seed: of the draw.
        owners: int64 [n], the images to draw from; None: all.
    """
    rng = np.random.default_rng(seed)
    allowed = np.arange(len(images[0])) if owners is None else owners
    chosen = np.sort(rng.choice(allowed, size=count))  # kind to memory maps
    scales = rng.integers(len(images), size=count)
    sizes = np.array([pixels.shape[1] for pixels in images])[scales]
    corners = rng.integers((sizes - patch_size + 1)[:, None], size=(count, 2))
    return _cut([_windows(pixels, patch_size) for pixels in images], chosen, scales, corners)


def _windows(images: np.ndarray, patch_size: int) -> np.ndarray:
    """A view of all patches at stride 1: [N, y, x, 3, P, P]."""
    return np.lib.stride_tricks.sliding_window_view(images, (patch_size, patch_size), axis=(1, 2))
