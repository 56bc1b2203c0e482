"""What MLflow calls to load and ask a logged bundle: named in its MLmodel, with no pickle of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from scenetrack.delivery.inference import SceneClassifier
from scenetrack.errors import DataError


class UnreadableImage(MlflowException):
    """An image that cannot be read: a server answers with status 400 and these words.

    For other errors it repeats the whole request in its answer, with every image.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, BAD_REQUEST)
        self._words = message

    def serialize_as_json(self) -> str:
        """The body of the answer."""
        return json.dumps({"error_code": self.error_code, "message": self._words})


class ServedBundle:
    """A bundle as a ``python_function`` model."""

    def __init__(self, classifier: SceneClassifier) -> None:
        self._classifier = classifier

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The verdict on each row.

        Args:
            frame: column ``image``: bytes of an image file, or their base64 text.
            params: taken because MLflow passes them; there are none.

        Returns:
            With the rows of ``frame``: ``label``, the class's name; ``probability``, its own;
            ``probabilities``, those of all classes by name.

        Raises:
            UnreadableImage: an image cannot be read; the message says which, and why.
        """
        try:
            verdicts = self._classifier.classify(frame["image"])
        except DataError as error:
            raise UnreadableImage(str(error)) from error
        rows = [(one.label, one.probability, one.probabilities) for one in verdicts]
        columns = ["label", "probability", "probabilities"]
        return pd.DataFrame(rows, columns=columns, index=frame.index)


def _load_pyfunc(path: str) -> ServedBundle:
    return ServedBundle(SceneClassifier(Path(path)))
