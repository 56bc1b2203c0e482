"""Task 4: one layer's output as the descriptor of a whole image, an SVM on it, and the network."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.classifiers import FittedClassifier
from scenetrack.config import KERNELS, LayerSvmConfig
from scenetrack.errors import ConfigError
from scenetrack.export.truncate import joined_output
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import Metric, Tracker
from scenetrack.stages.train_mlp import train_on_images
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.method_runs import Features, MethodRuns
from scenetrack.workflow.network import choose_network, export_descriptor
from scenetrack.workflow.result import StageResult

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


def layer_svm(config: LayerSvmConfig, tracker: Tracker) -> StageResult:
    """Descriptors of a layer through ONNX Runtime, the best SVM on them, against end to end.

    Raises:
        InputError: the data, the model or the layer cannot be used.
    """
    chosen = choose_network(config, tracker, "image_size")
    network, layers, images = chosen.network, chosen.layers, chosen.images
    _check_kernels(config.kernels, network, layers, images.train[:64])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.is_new:
            train_on_images(network, images, config, tracker, folder, "network/")
        onnx = export_descriptor(network, layers, images, config, tracker, folder).model
        return _compare(config, tracker, images, onnx, layers, unseen=chosen.is_new)


def _compare(
    config: LayerSvmConfig,
    tracker: Tracker,
    images: SceneImages,
    onnx: OnnxModel,
    layers: Sequence[str],
    *,
    unseen: bool,
) -> StageResult:
    started = time.perf_counter()
    train = _outputs(onnx, images.train)
    test = {name: values[:0] for name, values in train.items()}
    if len(images.test):
        test = _outputs(onnx, images.test)
    rate = (len(images.train) + len(images.test)) / (time.perf_counter() - started)
    tracker.log(Metric("time/descriptors_images_per_s", rate))
    comparison = MethodRuns(config, images, tracker, unseen)
    tags = {"descriptor": f"mlp {', '.join(layers)}"}
    comparison.add_end_to_end(test["logits"], train["logits"], tags)
    features = Features(
        train["descriptors"],
        test["descriptors"],
        preparation="standardise",
        tags={**tags, "encoder": "none"},
    )
    started = time.perf_counter()
    classifier = _best_kernel(config.kernels, features, comparison)
    comparison.add_svm("layer svm", classifier, features, time.perf_counter() - started)
    return comparison.finish()


def _outputs(onnx: OnnxModel, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Logits and descriptors of images, each float32 [N, D]."""
    return {name: values.reshape(len(pixels), -1) for name, values in onnx.predict(pixels).items()}


def _best_kernel(
    kernels: Sequence[str], features: Features, comparison: MethodRuns
) -> FittedClassifier:
    """The SVM whose kernel and settings are the most accurate inside train.

    The network has learnt its training images by heart, and among their descriptors every setting
    looks right: on the real split cross-validation says 91% where the test says 73%. So those that
    it was not trained on decide, and cross-validation only where there are none.
    """
    candidates = [
        comparison.cross_validate(kernel, features, on_held_out=True) for kernel in kernels
    ]
    where = "held-out training images" if comparison.validates else "cross-validation inside train"
    for one in candidates:
        logger.info("%s kernel: %.1f%% right in %s", one.kernel, 100 * one.cv_accuracy, where)
    return max(candidates, key=lambda one: one.cv_accuracy)


def _check_kernels(
    kernels: Sequence[str], network: keras.Model, layers: Sequence[str], pixels: np.ndarray
) -> None:
    """Raise ConfigError, before any training, for a kernel that the layer's output cannot take."""
    import keras

    asked = [kernel for kernel in kernels if KERNELS[kernel].of_histograms]
    if not asked:
        return
    part = keras.Model(network.inputs, joined_output(network, layers))
    if part.predict(pixels, verbose=0).min() < 0:
        raise ConfigError(
            f"the {asked[0]} kernel takes no negative values, but layer {', '.join(layers)} gives "
            "them: choose linear or rbf, or a layer with relu"
        )
