"""Inference behind a server: image files as clients send them, classified by a bundle."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenetrack.data.decoding import (
    FORMAT_NAMES,
    decoding_problem,
    open_image,
    resized,
    upright_rgb,
)
from scenetrack.delivery.bundle_contents import bundle_contents
from scenetrack.delivery.verdicts import NOT_FINITE, checked_verdicts
from scenetrack.errors import DataError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.files import printable


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one image: the class, and the probability of every class by name."""

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """Of the class, in [0, 1]."""
        return self.probabilities[self.label]


class SceneClassifier:
    """A bundle that classifies image files.

    Decoding, turning and resizing are those of training, so the verdicts are those of
    ``scenetrack predict``.

    Args:
        bundle: the ``.onnx`` file.

    Attributes:
        classes: their names.

    Raises:
        ModelError: the file is no bundle.
    """

    def __init__(self, bundle: Path) -> None:
        self._model = OnnxModel(bundle)
        classes, self._size = bundle_contents(self._model, printable(bundle))
        self.classes: tuple[str, ...] = tuple(classes)

    def classify(self, images: Iterable[object]) -> list[Prediction]:
        """Return the verdict on each image, in order.

        Args:
            images: each the bytes of an image file of at most 80 megapixels, or
                their base64 text, with or without ``data:image/...;base64,`` before it.

        Raises:
            DataError: one cannot be read or has no finite scores; the message says which, and why.
            ModelError: the bundle fails, or gives something else than verdicts.
        """
        squares = [
            _square(image, self._size, number) for number, image in enumerate(images, start=1)
        ]
        if not squares:
            return []
        outputs = self._model.predict(np.stack(squares))
        verdicts = checked_verdicts(outputs, len(squares), len(self.classes))
        if not verdicts.usable.all():
            number = int(np.argmin(verdicts.usable)) + 1
            raise DataError(
                f"image {number} of the request cannot be classified ({NOT_FINITE}): leave it "
                "out, or have the model made again"
            )
        results = verdicts.outputs
        return [
            Prediction(
                self.classes[int(label)],
                dict(zip(self.classes, map(float, probabilities), strict=True)),
            )
            for label, probabilities in zip(results["label"], results["probabilities"], strict=True)
        ]


def _square(image: object, size: int, number: int) -> np.ndarray:
    """Resize the image to uint8 [size, size, 3]."""
    content = _content(image, number)
    # Broken bytes make Pillow's decoders raise almost anything, not OSError alone.
    try:
        return resized(upright_rgb(open_image(io.BytesIO(content))), size)
    except Exception as error:
        raise _unusable(number, decoding_problem(error)) from error


def _content(image: object, number: int) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str):
        raise _unusable(number, f"it is of type {type(image).__name__}")
    text = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unusable(number, "its text is not base64") from error


def _unusable(number: int, reason: str) -> DataError:
    return DataError(
        f"image {number} of the request cannot be used ({reason}): send the bytes of a "
        f"{FORMAT_NAMES} file, in base64"
    )
