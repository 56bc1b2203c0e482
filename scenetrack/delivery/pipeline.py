"""A finished method in Python: images in, class scores out; bundles are verified against it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from scenetrack.classifiers import FittedClassifier
from scenetrack.config import AGGREGATIONS
from scenetrack.descriptors.aggregation import aggregate
from scenetrack.encoders import ImageEncoder
from scenetrack.errors import ModelError
from scenetrack.evaluation.temperature_scaling import softmax
from scenetrack.graphs.runtime import OnnxModel

# Enough to keep the processor busy; their descriptors and patches are what takes memory.
BATCH_SIZE = 16
# Of an output with an entry for each patch of a grid: image, row, column, value.
_GRID_AXES = 4


@dataclass(frozen=True)
class ScenePipeline:
    """Network, and where the method has them encoder and classifier, as they were fitted.

    Attributes:
        network: ``images`` uint8 [N, H, W, 3] to ``descriptors`` [N, D] or, of places of an image,
            [N, grid_h, grid_w, D] or [N, n, D]; and, unless it is handcrafted, to ``logits``
            float32 [N, C], [N, grid_h, grid_w, C] or [N, n, C].
        classes: names, in the order of the scores.
        image_size: side S in pixels that images are resized to.
        aggregation: one of ``config.AGGREGATIONS`` for logits of patches, else "".
        encoder: of local descriptors; None where the descriptors are the features.
        classifier: of the features; None for end to end, the network's own verdict.
        temperature: above 0, what scores are divided by before they become probabilities.
        device: "cpu", "gpu" or "auto", for the network.

    Raises:
        ModelError: the parts do not fit each other.
    """

    network: onnx.ModelProto
    classes: tuple[str, ...]
    image_size: int
    aggregation: str = ""
    encoder: ImageEncoder | None = None
    classifier: FittedClassifier | None = None
    temperature: float = 1.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.classifier is None and not self._axes("logits"):
            raise ModelError(
                "a network with the output logits, or a classifier, is required. Received: "
                "neither; train it again with this version"
            )
        if self._axes("logits") > 2 and self.aggregation not in AGGREGATIONS:
            raise ModelError(
                f"patch logits need an aggregation, one of: {', '.join(AGGREGATIONS)}. "
                f"Received: {self.aggregation!r}"
            )
        if self.encoder is not None and self._axes("descriptors") < 3:
            raise ModelError(
                "an encoder needs local descriptors, but this network gives one for each image: "
                "choose a method without an encoder"
            )
        if self.encoder is not None and self.classifier is None:
            raise ModelError("an encoder needs a classifier of what it encodes. Received: none")
        # Written so that NaN fails.
        if not 0 < self.temperature < float("inf"):
            raise ModelError(
                f"a finite temperature above 0 is required. Received: {self.temperature}; train "
                "it again"
            )
        labels = range(len(self.classes))
        if self.classifier is not None and self.classifier.classes.tolist() != list(labels):
            raise ModelError(
                f"a classifier of the {len(self.classes)} classes is required. Received: one of "
                f"the labels {self.classifier.classes.tolist()}; train it again"
            )

    @cached_property
    def session(self) -> OnnxModel:
        """The network, ready to run."""
        return OnnxModel(self.network.SerializeToString(), device=self.device)

    @property
    def has_evidence(self) -> bool:
        """Whether the method can say which patches spoke for a class."""
        if self.classifier is None:
            return self._axes("logits") == _GRID_AXES
        explains = self.encoder is not None and self.encoder.explains
        return explains and self._axes("descriptors") == _GRID_AXES

    def _axes(self, name: str) -> int:
        """Return the number of axes of the network's output ``name``; 0 without such an output."""
        ranks = {
            item.name: len(item.type.tensor_type.shape.dim) for item in self.network.graph.output
        }
        return ranks.get(name, 0)

    def scores(
        self, images: NDArray[np.uint8], batch_size: int = BATCH_SIZE
    ) -> NDArray[np.float64]:
        """Compute the score of every class, a few images at a time.

        Args:
            images: uint8 [N, S, S, 3]; may be a memory map.
            batch_size: images at a time.

        Returns:
            float64 [N, C].
        """
        parts = [
            self._scores(images[start : start + batch_size])
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate([np.empty((0, len(self.classes))), *parts])

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn scores float64 [N, C] into probabilities float64 [N, C]; the order stays."""
        return softmax(scores, self.temperature)

    def _scores(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        outputs = self.session.run(images=images)
        if self.classifier is None:
            logits = outputs["logits"].astype(np.float64)
            if not self.aggregation:
                return logits
            return aggregate(logits.reshape(len(logits), -1, logits.shape[-1]), self.aggregation)
        values = outputs["descriptors"]
        if self.encoder is None:
            return self.classifier.predict_scores(values.reshape(len(values), -1))
        local = values.reshape(len(values), -1, values.shape[-1])
        return self.classifier.predict_scores(self.encoder.encode(local))
