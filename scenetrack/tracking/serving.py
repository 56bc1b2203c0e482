"""What MLflow calls to load and ask a logged bundle: named in its MLmodel, with no pickle of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from scenetrack.errors import ScenetrackError
from scenetrack.serving import SceneClassifier


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
            MlflowException: an image cannot be read, which a server answers with status 400.
        """
        try:
            verdicts = self._classifier.classify(frame["image"])
        except ScenetrackError as error:
            raise MlflowException(str(error), BAD_REQUEST) from error
        rows = [(one.label, one.probability, one.probabilities) for one in verdicts]
        columns = ["label", "probability", "probabilities"]
        return pd.DataFrame(rows, columns=columns, index=frame.index)


def _load_pyfunc(path: str) -> ServedBundle:
    return ServedBundle(SceneClassifier(Path(path)))
