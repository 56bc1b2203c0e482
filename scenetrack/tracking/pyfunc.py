"""The ``python_function`` flavour of bundles: loaded by the name of this module, without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from scenetrack.delivery.inference import SceneClassifier
from scenetrack.errors import InputError


class UnreadableImage(MlflowException):
    """An image has no class: an MLflow server answers with status 400 and this message.

    For other errors the server repeats the whole request, with every image, in its answer.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, BAD_REQUEST)
        self._text = message

    def serialize_as_json(self) -> str:
        """Return the body of the server's answer."""
        return json.dumps({"error_code": self.error_code, "message": self._text})


class ServedBundle:
    """A bundle as a ``python_function`` model."""

    def __init__(self, classifier: SceneClassifier) -> None:
        self._classifier = classifier

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the image of each row.

        Args:
            frame: column ``image``: bytes of an image file, or their base64 text.
            params: ignored; MLflow passes it.

        Returns:
            A frame with the index of ``frame``: ``label``, the predicted class; ``probability``,
            that of this class; ``probabilities``, those of all classes by name.

        Raises:
            UnreadableImage: an image cannot be read or classified; the message says which, and why.
        """
        try:
            predictions = self._classifier.classify(frame["image"])
        except InputError as error:
            raise UnreadableImage(str(error)) from error
        rows = [(each.label, each.probability, each.probabilities) for each in predictions]
        columns = ["label", "probability", "probabilities"]
        return pd.DataFrame(rows, columns=columns, index=frame.index)


def _load_pyfunc(path: str) -> ServedBundle:
    return ServedBundle(SceneClassifier(Path(path)))
