"""A bundle opened for `predict`: what it says of itself, and batches of files through it."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from scenetrack.data.patches import PatchGrid
from scenetrack.data.prefetch import read_ahead
from scenetrack.errors import ConfigError, ModelError
from scenetrack.graphs.runtime import OnnxModel

_NEEDED = frozenset({"probabilities", "label", "scores"})
# Side in pixels; a bundle that asks for more would take the machine's memory.
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Batch:
    """Some images in a row and what the bundle says of them.

    Attributes:
        paths: of the files.
        problems: why the files at these places of ``paths`` could not be read.
        images: the n others, uint8 [n, S, S, 3].
        outputs: of the bundle for them, arrays [n, ...] by name.
    """

    paths: list[str]
    problems: Mapping[int, str]
    images: np.ndarray
    outputs: Mapping[str, np.ndarray]


class Classifier:
    """A bundle that classifies image files.

    Args:
        model: the bundle, running.
        memory: bytes for the images in work and their tensors.
        threads: that decode images.
        workers: threads that run the model, each on a batch of its own.

    Attributes:
        classes: names of the C classes.
        image_size: side in pixels that the bundle resizes images to.

    Raises:
        ModelError: the model is no bundle.
    """

    def __init__(self, model: OnnxModel, *, memory: int, threads: int, workers: int = 1) -> None:
        self.model = model
        self._memory = memory
        self._threads = threads
        self._workers = workers
        self.classes, self.image_size = _description(model)
        self.batch_size = model.batch_size((self.image_size, self.image_size, 3))

    @property
    def grid(self) -> PatchGrid | None:
        """Where the patches lie that the bundle has evidence of; None where it has none."""
        if "evidence" not in self.model.outputs:
            return None
        about = self.model.metadata
        try:
            return PatchGrid(self.image_size, int(about["patch_size"]), int(about["stride"]))
        except (ConfigError, KeyError, ValueError) as error:
            raise ModelError(
                "a bundle with evidence says its patch_size and stride, but this one does not: "
                "make it again with scenetrack bundle"
            ) from error

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores float32 [N, C] of images uint8 [N, S, S, 3]."""
        return self.model.run(images=images)["scores"]

    def batches(self, paths: Iterable[str]) -> Generator[Batch, None, None]:
        """Classify the files, in order; the next ones are decoded while batches are in work."""
        size = self.image_size
        # A quarter of the memory each for pictures in decoding and for decoded ones that wait.
        room = self._memory // 4 // (3 * size**2)
        ahead = int(np.clip(room, 1, (self._workers + 1) * self.batch_size))
        decoded = read_ahead(
            paths, size, threads=self._threads, ahead=ahead, memory=self._memory // 4
        )
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="classify")
        pending: deque[Future[Batch]] = deque()

        def submit(count: int) -> None:
            for _ in range(count):
                if batch := list(islice(decoded, self.batch_size)):
                    pending.append(pool.submit(self._classified, batch))

        try:
            # One more than there are workers, so that none waits while rows are written.
            submit(self._workers + 1)
            while pending:
                result = pending.popleft().result()
                submit(1)
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
            decoded.close()

    def _classified(self, batch: Sequence[tuple[str, np.ndarray | str]]) -> Batch:
        paths = [path for path, _ in batch]
        problems = {place: it for place, (_, it) in enumerate(batch) if isinstance(it, str)}
        images = [it for _, it in batch if isinstance(it, np.ndarray)]
        if not images:
            none = np.empty((0, self.image_size, self.image_size, 3), np.uint8)
            return Batch(paths, problems, none, dict.fromkeys(self.model.outputs, none))
        stacked = np.stack(images)
        outputs = self.model.run(images=stacked)
        if not ((outputs["label"] >= 0) & (outputs["label"] < len(self.classes))).all():
            raise ModelError(
                f"a bundle with labels of its {len(self.classes)} classes is required, but this "
                "one gives others: make it again with scenetrack bundle"
            )
        return Batch(paths, problems, stacked, outputs)


def model_digest(path: Path) -> str:
    """Hex digest of a model file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _description(model: OnnxModel) -> tuple[list[str], int]:
    """Names of the classes, and the side in pixels that images are resized to.

    Raises:
        ModelError: the model is no bundle.
    """
    about = model.metadata
    try:
        classes, size = json.loads(about["classes"]), int(about["image_size"])
        described = about["kind"] == "bundle" and 0 < size <= _LARGEST_SIDE and len(classes) > 0
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        fits = model.outputs["probabilities"][-1] in (-1, len(classes))
    except (KeyError, RecursionError, TypeError, ValueError):
        described = named = fits = False
    if not (described and named and fits and model.outputs.keys() >= _NEEDED):
        raise ModelError(
            "a bundle is required, but this ONNX model is none: make one with "
            "scenetrack bundle RUN -o scene.onnx"
        )
    return classes, size
