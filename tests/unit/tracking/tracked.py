"""What the tests of tracking log and look at."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.records import Model, TensorSpec

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
