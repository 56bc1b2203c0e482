"""Saliency pictures of predictions, one for each image."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scenetrack.data.decoding import decode_image
from scenetrack.data.patches import PatchGrid
from scenetrack.delivery.explanation import covering_grid, occlusion, spread
from scenetrack.delivery.file_classifier import Batch, Classifier
from scenetrack.delivery.rows import Row
from scenetrack.errors import DataError, ModelError, ScenetrackError
from scenetrack.figures.saliency import evidence_map
from scenetrack.system.files import printable, replacing

logger = logging.getLogger(__name__)

# Of the 255 bytes of a file name some are needed for a number, the suffix and a temporary name.
_LONGEST = 200
_LARGEST_SHOWN = 640  # pixels

_COVERED, _ADDED = "what the score loses where it is covered", "what each patch adds to the score"


class Explainer:
    """Writes a picture of each image that has a class.

    Args:
        folder: for the pictures.
        classifier: that the rows come from. With the output ``evidence`` float [N, side, side, C]
            it tells itself which patch speaks for which class; else squares of the image are
            covered, one after the other.
        earlier: paths of the images whose pictures were made by a process that was killed.
    """

    def __init__(self, folder: Path, classifier: Classifier, earlier: Iterable[str]) -> None:
        self._folder = folder
        self._classifier = classifier
        self._grid = classifier.grid
        self._names = PictureNames()
        for path in earlier:
            self._names.name(path)

    def explain(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Write the pictures of a batch.

        Args:
            batch: the images and what the classifier says of them.
            rows: of all its images.

        Raises:
            ModelError: the evidence is not that of the grid that the bundle tells of.
            ScenetrackError: a picture cannot be written.
        """
        place = 0  # in the images that could be read
        for row in rows:
            name = self._names.name(row.path)
            if row.top:
                self._draw(row, name, batch, place)
                place += 1

    def _draw(self, row: Row, name: str, batch: Batch, place: int) -> None:
        try:
            image = _shown(decode_image(Path(row.path)))
        except DataError as error:  # it was readable a moment ago
            logger.warning("no picture of it: %s", error)
            return
        values, grid = _patch_saliency(self._classifier, batch.images[place], batch.outputs, place)
        unit = _COVERED if self._grid is None else _ADDED
        label, probability = row.top[0]
        figure = evidence_map(image, spread(values, grid), label, probability, unit, name=name)
        try:
            with replacing(self._folder / name) as temporary:
                temporary.write_bytes(figure.png)
        except OSError as error:
            raise ScenetrackError(
                f"a picture cannot be written to {printable(self._folder)} ({error.strerror}): "
                "free some room or choose another folder"
            ) from error


def saliency(
    classifier: Classifier, image: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return how much each pixel of an image speaks for its predicted class, float64 [S, S].

    Args:
        classifier: the bundle, with its output ``evidence`` where it has one.
        image: uint8 [S, S, 3].
        outputs: what the bundle gives for the image, arrays [1, ...].
    """
    return spread(*_patch_saliency(classifier, image, outputs, 0))


def _patch_saliency(
    classifier: Classifier, image: np.ndarray, outputs: Mapping[str, np.ndarray], place: int
) -> tuple[np.ndarray, PatchGrid]:
    """Return patches' saliency for the predicted class, float [side, side], and their places."""
    label, grid = int(outputs["label"][place]), classifier.grid
    if grid is None:
        values = occlusion(classifier.scores, image, label, classifier.batch_size)
        return values, covering_grid(classifier.image_size)
    evidence = outputs["evidence"]
    if evidence.shape[1:3] != (grid.side, grid.side):
        raise ModelError(
            f"evidence of {grid.side} x {grid.side} patches is required, as the "
            f"bundle's patch_size and stride say. Received: {evidence.shape[1:3]}; make it "
            "again with scenetrack bundle"
        )
    # As in occlusion: what a patch adds to the scores of all classes decides nothing.
    return evidence[place, :, :, label] - evidence[place].mean(axis=-1), grid


class PictureNames:
    """Gives each image a file name of its own: ``coast_1.png``, then ``coast_1_2.png``.

    The names depend on the images that came before, so images whose pictures exist already must
    be named as well.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def name(self, path: str) -> str:
        """Return the name for the next image, whose file is ``path``."""
        stem = Path(path).stem
        while len(os.fsencode(stem)) > _LONGEST:
            stem = stem[:-1]
        unique = stem
        number = self._next.get(stem.casefold(), 2)
        # Some file systems take capitals for small letters.
        while unique.casefold() in self._taken:
            unique = f"{stem}_{number}"
            number += 1
        self._next[stem.casefold()] = number
        self._taken.add(unique.casefold())
        return f"{unique}.png"


def _shown(image: np.ndarray) -> np.ndarray:
    """Shrink the image to at most 640 px wide and high: uint8 [H, W, 3]."""
    small = Image.fromarray(image)
    small.thumbnail((_LARGEST_SHOWN, _LARGEST_SHOWN))
    return np.asarray(small)
