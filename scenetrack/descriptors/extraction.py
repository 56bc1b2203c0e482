"""Extraction of local descriptors from images, with a cache that later runs reuse."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scenetrack.cache import ArraySpec, Cache
from scenetrack.data.decoding import PIXELS_VERSION
from scenetrack.graphs.runtime import OnnxModel

logger = logging.getLogger(__name__)

KIND = "descriptors"
PATCHES_AT_ONCE = 32768  # limits the memory of a batch for any number of images


@dataclass(frozen=True)
class LocalDescriptors:
    """Descriptors of all images of a split.

    Attributes:
        values: [N, n, D], n descriptors of each image; a memory map.
        logits: float32 [N, n, C], the network's logits of each patch; C is 0 for handcrafted
            descriptors.
    """

    values: NDArray[np.generic]
    logits: NDArray[np.float32]

    def batches(self, task: str) -> Iterator[tuple[slice, LocalDescriptors]]:
        """Yield the descriptors of a few images at a time, with the slice of the images.

        Args:
            task: label of the progress bar.
        """
        count, each = self.values.shape[:2]
        at_once = max(1, PATCHES_AT_ONCE // each)
        with tqdm(total=count, desc=task, unit="image", disable=None) as bar:
            for start in range(0, count, at_once):
                part = slice(start, min(start + at_once, count))
                yield part, LocalDescriptors(self.values[part], self.logits[part])
                bar.update(part.stop - part.start)

    def sample(
        self, count: int, *, seed: int, owners: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Draw random descriptors.

        Args:
            count: number of descriptors; if there are no more than that, all in order.
            seed: seed of the random draw.
            owners: int64 [m], indices of the images to draw from; None for all.

        Returns:
            Descriptors [count, D], and the index of each within its image, int64 [count] in [0, n).
        """
        rng = np.random.default_rng(seed)
        allowed = np.arange(len(self.values)) if owners is None else owners
        each = self.values.shape[1]
        if count >= len(allowed) * each:
            every = self.values[allowed].reshape(-1, self.values.shape[2])
            return every, np.tile(np.arange(each), len(allowed))
        images = np.sort(rng.choice(allowed, size=count))  # memory maps are read in order
        places = rng.integers(self.values.shape[1], size=count)
        return self.values[images, places], places


@dataclass
class DescriptorExtractor:
    """Computes local descriptors of whole images with an ONNX graph.

    Args:
        network: graph from ``images`` uint8 [N, S, S, 3] to ``descriptors`` [N, ..., D] and, for a
            patch network, ``logits`` float32 [N, ..., C], at n positions in between.
        digest: digest of the function that the graph computes.
        positions: float32 [n, 2], the centres (y, x) of the descriptors relative to the image.

    Attributes:
        seconds: computing time so far.
        described: number of images computed so far, without those found in the cache.
    """

    network: OnnxModel
    digest: str
    positions: NDArray[np.float32]
    seconds: float = field(default=0.0, init=False)
    described: int = field(default=0, init=False)

    @property
    def images_per_second(self) -> float:
        """Images described per second so far; 0 where all were found in the cache."""
        return self.described / self.seconds if self.seconds else 0.0

    def describe(
        self, images: NDArray[np.uint8], source: Mapping[str, str], task: str
    ) -> LocalDescriptors:
        """Return the descriptors of all ``images``, from the cache if they are there.

        Args:
            images: uint8 [N, S, S, 3], N > 0, an array or a memory map.
            source: identifies the images, for instance by data set digest and split.
            task: label of the progress bar.
        """
        key = self.key(images, source)
        cache, shapes = Cache(), self._local_outputs
        logits = shapes["logits"][-1] if "logits" in shapes else 0
        stored = cache.open(KIND, key)
        if stored is None:
            spec = self._spec(images)
            stored = cache.store(KIND, key, spec, self._blocks(images, task))
        else:
            logger.info("%s: descriptors of %d images found in the cache", task, len(images))
        width = stored.shape[2] - logits
        return LocalDescriptors(stored[..., :width], stored[..., width:])

    def key(self, images: NDArray[np.uint8], source: Mapping[str, str]) -> dict[str, str]:
        """Return all that the descriptors depend on; arguments as for ``describe``."""
        return {
            "model": self.digest,
            "image_size": str(images.shape[1]),
            "pixels": PIXELS_VERSION,
            "provider": self.network.provider,
            "runtime": self.network.runtime,
            **source,
        }

    @property
    def _local_outputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs with a value for each place; logits may be those of the image."""
        shapes = self.network.outputs
        rank = len(shapes["descriptors"])
        names = ("descriptors", "logits")
        return {name: shapes[name] for name in names if len(shapes.get(name, ())) == rank}

    def _spec(self, images: NDArray[np.uint8]) -> ArraySpec:
        (block,) = self._run(images[:1])
        return ArraySpec((len(images), *block.shape), str(block.dtype))

    def _blocks(self, images: NDArray[np.uint8], task: str) -> Iterator[NDArray[np.generic]]:
        """Yield descriptors and logits, concatenated to [B, n, D + C], a few images at a time."""
        at_once = max(1, PATCHES_AT_ONCE // len(self.positions))
        with tqdm(total=len(images), desc=task, unit="image", disable=None) as bar:
            for start in range(0, len(images), at_once):
                began = time.perf_counter()
                block = self._run(images[start : start + at_once])
                self.seconds += time.perf_counter() - began
                self.described += len(block)
                yield block
                bar.update(len(block))

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        outputs = self.network.predict(images)
        shape = (len(images), len(self.positions), -1)
        parts = [outputs[name].reshape(shape) for name in self._local_outputs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
