"""What the tests of tracking log and look at."""

from __future__ import annotations

import io
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.records import Model, TensorSpec

with warnings.catch_warnings():
    # The first import warns of type hints of mlflow's own.
    warnings.simplefilter("ignore", UserWarning)
    from mlflow.pyfunc import scoring_server as scoring_server

CONFIG = TrainMlpConfig(experiment="unit")
TAGS = {"task": "1", "stage": "train_mlp", "dataset": "demo"}
IMAGES = [TensorSpec("images", "uint8", (-1, 32, 32, 3))]
SCORES = [TensorSpec("probabilities", "float32", (-1, 8))]


def start(config: TrainMlpConfig = CONFIG) -> AbstractContextManager[tracking.MlflowTracker]:
    """A run of a stage, to be opened with ``with``."""
    return tracking.open_run(config, name="train_mlp 1024,512", tags=TAGS)


def run_of(client: MlflowClient, tracker: tracking.MlflowTracker) -> Run:
    return client.get_run(tracker.run_id)


def keras_model(path: Path, name: str = "model") -> Model:
    return Model(name, path, IMAGES, SCORES, {"classes": "coast,forest"})


def picture(colour: tuple[int, int, int], format: str = "PNG") -> bytes:
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12), colour).save(buffer, format)
    return buffer.getvalue()
