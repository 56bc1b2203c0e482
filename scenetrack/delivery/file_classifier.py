"""Classify image files with a bundle, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from scenetrack.data.patches import PatchGrid
from scenetrack.data.prefetch import read_ahead
from scenetrack.delivery.bundle_contents import bundle_contents
from scenetrack.delivery.verdicts import NOT_FINITE, Verdicts, checked_verdicts
from scenetrack.errors import ConfigError, ModelError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.foreign import whole_number


@dataclass(frozen=True)
class Batch:
    """Some images in a row and what the bundle says of them.

    Attributes:
        paths: of the files.
        problems: why the files at these places of ``paths`` have no class.
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
        self.classes, self.image_size = bundle_contents(model)
        self.batch_size = model.batch_size((self.image_size, self.image_size, 3))

    @property
    def grid(self) -> PatchGrid | None:
        """Where the patches lie that the bundle has evidence of; None where it has none."""
        if "evidence" not in self.model.outputs:
            return None
        about = self.model.metadata
        try:
            return PatchGrid(
                self.image_size,
                whole_number(about["patch_size"], 1, self.image_size),
                whole_number(about["stride"], 1, self.image_size),
            )
        except (ConfigError, KeyError, ValueError) as error:
            raise ModelError(
                "a bundle with evidence says its patch_size and stride, but this one does not: "
                "make it again with scenetrack bundle"
            ) from error

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return scores float32 [N, C] of images uint8 [N, S, S, 3]."""
        return self.judged(images).outputs["scores"]

    def judged(self, images: np.ndarray) -> Verdicts:
        """Return the verdicts on images uint8 [N, S, S, 3], N > 0.

        Raises:
            ModelError: the model fails, or gives something else than verdicts.
        """
        outputs = self.model.predict(images)
        return checked_verdicts(outputs, len(images), len(self.classes))

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
        problems = {place: read for place, (_, read) in enumerate(batch) if isinstance(read, str)}
        images = [read for _, read in batch if isinstance(read, np.ndarray)]
        if not images:
            none = np.empty((0, self.image_size, self.image_size, 3), np.uint8)
            return Batch(paths, problems, none, dict.fromkeys(self.model.outputs, none))
        stacked = np.stack(images)
        verdicts = self.judged(stacked)
        read = [place for place in range(len(paths)) if place not in problems]
        problems |= {read[k]: NOT_FINITE for k in np.flatnonzero(~verdicts.usable)}
        return Batch(paths, problems, stacked[verdicts.usable], verdicts.outputs)
