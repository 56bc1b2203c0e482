"""Data augmentation: shuffled batches of randomly changed images, drawn anew for each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scenetrack.data.batches import batch_count, batch_slices

SHIFT = 0.1  # largest shift, as a fraction of the side
ZOOM = 0.15  # largest change of scale
BRIGHTNESS = 0.2  # largest change of gain


@dataclass(frozen=True)
class ImageBatches:
    """Shuffled training images, augmented in NumPy.

    Args:
        images: images uint8 [N, S, S, 3].
        labels: class indices int64 [N].
        chosen: indices int64 [n] of the images to train on.
        augmentation: any of flip, shift, zoom, brightness.
        batch_size: number of images in a batch.
        seed: seed that determines the draw together with the epoch, so that a resumed training
            sees the same images.
    """

    images: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    augmentation: Sequence[str]
    batch_size: int
    seed: int

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return len(self.chosen)

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return batch_count(len(self), self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of images uint8 [B, S, S, 3] and labels int64 [B]."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.chosen)
        for part in batch_slices(len(order), self.batch_size):
            batch = np.sort(order[part])  # sorted for memory maps
            yield augment(self.images[batch], self.augmentation, rng), self.labels[batch]


def augment(
    images: np.ndarray, augmentation: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Return randomly changed copies of ``images``: uint8 [B, S, S, 3] -> uint8 [B, S, S, 3].

    Flip, shift and zoom are one nearest-neighbour resampling with reflection at the borders.
    Brightness multiplies by a gain.
    """
    count, size = images.shape[:2]
    rows = np.tile(np.arange(size, dtype=np.float64), (count, 1))
    columns = rows.copy()
    middle = (size - 1) / 2
    if "zoom" in augmentation:
        scale = rng.uniform(1 - ZOOM, 1 + ZOOM, size=(count, 1))
        rows, columns = (middle + (axis - middle) * scale for axis in (rows, columns))
    if "shift" in augmentation:
        rows, columns = (
            axis + rng.uniform(-SHIFT, SHIFT, size=(count, 1)) * size for axis in (rows, columns)
        )
    if "flip" in augmentation:
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    which = np.arange(count)[:, None, None]
    changed: np.ndarray = images[
        which, _mirror(rows, size)[:, :, None], _mirror(columns, size)[:, None, :]
    ]
    if "brightness" in augmentation:
        gain = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, size=(count, 1, 1, 1))
        changed = np.clip(changed * gain, 0, 255).astype(np.uint8)
    return changed


def _mirror(positions: np.ndarray, size: int) -> np.ndarray:
    """Return the nearest pixel of each position, reflected at the borders: int64 in [0, size)."""
    folded = np.mod(np.rint(positions).astype(np.int64), 2 * size)
    mirrored: np.ndarray = np.where(folded < size, folded, 2 * size - 1 - folded)
    return mirrored
