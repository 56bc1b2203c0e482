"""A finished method, used from Python."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scenetrack.data.images import load_images
from scenetrack.delivery.file_classifier import Classifier
from scenetrack.delivery.paths import PathList, find_images
from scenetrack.delivery.verdicts import NOT_FINITE
from scenetrack.errors import InputError, ModelError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.stages.predict import bundle_file, with_saliency

if TYPE_CHECKING:
    import pandas as pd

    from scenetrack.delivery.pipeline import ScenePipeline

Images: TypeAlias = NDArray[np.uint8] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_MEMORY = 2**29  # bytes for images in work and their tensors


def load(model: str | os.PathLike[str]) -> Model:
    """Open a finished method.

    Args:
        model: a bundle (``.onnx``), a run id, a ``.keras`` file, or an address in MLflow.

    Raises:
        ModelError: it is none of these, or cannot be bundled.
    """
    return Model(os.fspath(model))


class Model:
    """A finished method as one ONNX graph.

    Attributes:
        classes: names, in the order of the probabilities.
        image_size: side in pixels that images are resized to.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._file = bundle_file(source)
        self._classifier = Classifier(OnnxModel(self._file), memory=_MEMORY, threads=1)
        self.classes = tuple(self._classifier.classes)
        self.image_size = self._classifier.image_size

    def predict(self, images: Images) -> pd.DataFrame:
        """Classify images.

        Args:
            images: uint8 [N, H, W, 3]; or a file, a folder or a pattern, or several of them, of
                which each file counts once.

        Returns:
            One row for each image: ``image`` (number or path), ``label``, ``probability``,
            ``probability/CLASS`` of every class, and ``error``, why an image has no class.

        Raises:
            InputError: a word means no image, or the array has another shape or type.
        """
        import pandas as pd

        names, problems, probabilities = self._outputs(images)
        best = probabilities.argmax(axis=1) if len(probabilities) else np.empty(0, int)
        read = [k for k in range(len(names)) if k not in problems]
        table = pd.DataFrame({"image": names})
        table.loc[read, "label"] = [self.classes[label] for label in best]
        table.loc[read, "probability"] = probabilities.max(axis=1, initial=0.0)
        for number, name in enumerate(self.classes):
            table.loc[read, f"probability/{name}"] = probabilities[:, number]
        table["error"] = [problems.get(k, "") for k in range(len(names))]
        return table

    def descriptors(self, images: Images) -> NDArray[np.float32]:
        """Compute the method's descriptors: [N, n, D] of n places, or [N, D] of whole images.

        Raises:
            InputError: the model is a file, which holds the whole method, or has no descriptors.
        """
        outputs = self._pipeline.session.predict(self._squares(images))
        if "descriptors" not in outputs:
            raise InputError(f"{self._source} classifies whole images: it has no descriptors")
        values = outputs["descriptors"]
        shape = (len(values), -1, values.shape[-1]) if values.ndim > 2 else values.shape
        return np.asarray(values, np.float32).reshape(shape)

    def explain(self, image: Images) -> NDArray[np.float64]:
        """Compute how much each pixel of an image speaks for its predicted class.

        Args:
            image: a file, or uint8 [H, W, 3].

        Returns:
            float64 [S, S] for the image resized to S; positive where it speaks for the class.

        Raises:
            InputError: there are several images.
        """
        from scenetrack.delivery.explanation_pictures import saliency

        square = self._squares(image)
        if len(square) != 1:
            raise InputError(f"explain takes one image. Received: {len(square)}")
        explaining = OnnxModel(with_saliency(self._file))
        classifier = Classifier(explaining, memory=_MEMORY, threads=1)
        verdicts = classifier.judged(square)
        if not verdicts.usable.all():
            raise ModelError(f"the image cannot be explained: {NOT_FINITE}; choose another model")
        return saliency(classifier, square[0], verdicts.outputs)

    @cached_property
    def _pipeline(self) -> ScenePipeline:
        if Path(self._source).suffix.lower() == ".onnx":
            raise InputError(
                "descriptors need the run of a method, and a bundle is the method as a whole: "
                "name the run"
            )
        from scenetrack.workflow.load_method import find_method, open_pipeline

        return open_pipeline(find_method(self._source), None, "cpu")

    def _outputs(
        self, images: Images
    ) -> tuple[list[int] | list[str], dict[int, str], NDArray[np.float32]]:
        """Return names, why some have no class, and the M others' probabilities float32 [M, C]."""
        if isinstance(images, np.ndarray):
            return self._of_pixels(_checked(images))
        paths, problems, parts = list[str](), dict[int, str](), list[NDArray[np.float32]]()
        with _find(images) as found:
            for batch in self._classifier.batches(found):
                problems |= {len(paths) + place: text for place, text in batch.problems.items()}
                paths += batch.paths
                if len(batch.images):
                    parts.append(batch.outputs["probabilities"])
        none = np.empty((0, len(self.classes)), np.float32)
        return paths, problems, np.concatenate([none, *parts])

    def _of_pixels(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[list[int], dict[int, str], NDArray[np.float32]]:
        numbers = list(range(len(pixels)))
        if not numbers:
            return [], {}, np.empty((0, len(self.classes)), np.float32)
        verdicts = self._classifier.judged(pixels)
        problems = {k: NOT_FINITE for k in numbers if not verdicts.usable[k]}
        return numbers, problems, verdicts.outputs["probabilities"]

    def _squares(self, images: Images) -> NDArray[np.uint8]:
        """Resize images to uint8 [N, S, S, 3]."""
        if isinstance(images, np.ndarray):
            from PIL import Image

            from scenetrack.data.decoding import resized

            pixels = _checked(images if images.ndim == 4 else images[None])
            return np.stack([resized(Image.fromarray(image), self.image_size) for image in pixels])
        with _find(images) as found:
            return np.asarray(load_images([Path(path) for path in found], self.image_size))


def _find(images: Images) -> PathList:
    words = [images] if isinstance(images, str | os.PathLike) else list(images)
    for word in words:
        if not isinstance(word, str | os.PathLike):
            raise InputError(
                "images must be paths, or one array uint8 [N, H, W, 3]. Received: a list with "
                f"{type(word).__name__}; join arrays with numpy.stack"
            )
    no_input = io.TextIOWrapper(io.BytesIO())  # "-" is for the command line
    return find_images([os.fspath(word) for word in words], no_input)


def _checked(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(
            "images must be an array uint8 [N, H, W, 3]. Received: "
            f"{images.dtype} {list(images.shape)}"
        )
    return images
