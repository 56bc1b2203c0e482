"""What the tests of tracking log and look at."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.entities import Run
from onnx import TensorProto
from PIL import Image

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.graph import GraphBuilder
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


CLASSES = ("red", "green", "blue")


def colour_bundle(path: Path, steepness: float = 0.1) -> Path:
    """A bundle without learning: the class is the strongest colour of the mean pixel."""
    builder = GraphBuilder("colours")
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    floats = builder.node("Cast", images, to=TensorProto.FLOAT)
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    means = builder.node("ReduceMean", floats, axes, keepdims=0)
    scores = builder.node("Mul", means, builder.constant("steepness", np.float32(steepness)))
    shape = ["batch", len(CLASSES)]
    builder.output("probabilities", builder.node("Softmax", scores, axis=1), np.float32, shape)
    label = builder.node("ArgMax", scores, axis=1, keepdims=0)
    builder.output("label", label, np.int64, ["batch"])
    builder.output("scores", scores, np.float32, shape)
    metadata = {"kind": "bundle", "classes": json.dumps(CLASSES), "image_size": "8"}
    onnx.save(builder.build(metadata), path)
    return path


def picture(colour: tuple[int, int, int], format: str = "PNG") -> bytes:
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12), colour).save(buffer, format)
    return buffer.getvalue()
