"""Images to local descriptors: values and where in the image they were taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from scenetrack.data.patches import PatchGrid, sample_patches
from scenetrack.runtime import OnnxModel

PATCHES_AT_ONCE = 8192  # bounds the memory of one step, whatever the number of images


@dataclass(frozen=True)
class LocalDescriptors:
    """Descriptors of a run of images.

    Attributes:
        images: which images these are, a slice of those that were described.
        values: float32 [N, n, D], n patches of each image, row by row.
        logits: float32 [N, n, C], the network's own verdict on each patch.
        positions: int64 [n, 2], top-left corners (y, x) in pixels.
    """

    images: slice
    values: np.ndarray
    logits: np.ndarray
    positions: np.ndarray


@dataclass
class LayerDescriptor:
    """A network's layer as patch descriptor, computed by ONNX Runtime over a patch grid.

    Args:
        network: the dense form: ``descriptors`` [N, grid_h, grid_w, ...] and ``logits``
            [N, grid_h, grid_w, C] for ``images`` uint8 [N, H, W, 3].
        grid: where its patches lie.
    """

    network: OnnxModel
    grid: PatchGrid
    seconds: float = field(default=0.0, init=False)
    described: int = field(default=0, init=False)

    @property
    def images_per_second(self) -> float:
        """Images described per second of ``describe`` so far."""
        return self.described / self.seconds if self.seconds else 0.0

    def describe(self, images: np.ndarray, task: str) -> Iterator[LocalDescriptors]:
        """Descriptors of all grid patches of ``images``, a few images at a time.

        Args:
            images: uint8 [N, S, S, 3], an array or a memory map.
            task: what the progress bar says.
        """
        at_once = max(1, PATCHES_AT_ONCE // self.grid.count)
        with tqdm(total=len(images), desc=task, unit="image", disable=None) as bar:
            for start in range(0, len(images), at_once):
                began = time.perf_counter()
                part = slice(start, min(start + at_once, len(images)))
                count = part.stop - part.start
                outputs = self.network.run(images=images[part])
                values, logits = (
                    outputs[name].reshape(count, self.grid.count, -1)
                    for name in ("descriptors", "logits")
                )
                self.seconds += time.perf_counter() - began
                self.described += count
                yield LocalDescriptors(part, values, logits, self.grid.positions)
                bar.update(count)

    def sample(self, images: np.ndarray, count: int, *, seed: int) -> np.ndarray:
        """Descriptors of ``count`` patches at random places of ``images``: float32 [count, D]."""
        patches = sample_patches(images, self.grid.patch_size, count, seed=seed)
        # An image of the size of a patch has a grid of one.
        return self.network.predict(patches)["descriptors"].reshape(count, -1)


def aggregate(logits: np.ndarray, how: str) -> np.ndarray:
    """An image's scores from its patches' logits: float32 [N, n, C] -> [N, C].

    ``mean`` and ``max`` are over the patches' logits; ``vote`` is the part of the patches whose
    largest logit is the class's.
    """
    reduced: np.ndarray
    if how == "vote":
        votes = logits.argmax(axis=2)[:, :, None] == np.arange(logits.shape[2])
        reduced = votes.mean(axis=1, dtype=np.float32)
    else:
        reduced = logits.mean(axis=1) if how == "mean" else logits.max(axis=1)
    return reduced
