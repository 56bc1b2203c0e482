"""Task 4: a layer's output as global descriptor of an image, an SVM on it, and end to end."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence

import numpy as np

from scenetrack.classifiers import FittedClassifier
from scenetrack.classifiers.selection import Selection
from scenetrack.config import KERNELS, LayerSvmConfig
from scenetrack.errors import ConfigError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import Metric, Tracker
from scenetrack.workflow.dataset import SceneImages, open_images
from scenetrack.workflow.descriptor_export import export_layers, open_descriptor
from scenetrack.workflow.method_runs import Features, MethodRuns
from scenetrack.workflow.network import plan_network, smallest_output
from scenetrack.workflow.network_training import train_network
from scenetrack.workflow.result import StageResult
from scenetrack.workflow.whole_images import training_images

logger = logging.getLogger(__name__)


def layer_svm(config: LayerSvmConfig, tracker: Tracker) -> StageResult:
    """Run the stage: child runs ``end to end`` and ``layer svm``, the best SVM on a layer.

    Raises:
        InputError: the data, the model or the layer cannot be used.
    """
    plan = plan_network(config, "image_size")
    images = plan.judging_images(open_images(config, tracker, config.image_size, config.validation))
    network = plan.network_for(images.dataset)
    if any(KERNELS[kernel].of_histograms for kernel in config.kernels):
        smallest = smallest_output(network, plan.layers, images.train[:64])
        _check_kernels(config.kernels, smallest, plan.layer_names)
    if plan.is_new:
        train_network(network, training_images(images, config, "network/"), config, tracker)

    onnx = open_descriptor(
        export_layers(network, plan.layers, images, config, tracker), config, tracker
    )
    train, test = _outputs_of_splits(onnx, images, tracker)

    name = f"mlp {plan.layer_names}"
    methods = MethodRuns(config, images, tracker, network=True)
    methods.add_end_to_end(train["logits"], test.get("logits"), name)
    features = Features(train["descriptors"], test.get("descriptors"), "standardise", name)
    started = time.perf_counter()
    classifier = _best_kernel(config.kernels, features, methods)
    methods.add_svm("layer svm", classifier, features, time.perf_counter() - started)
    return methods.finish()


def _outputs_of_splits(
    onnx: OnnxModel, images: SceneImages, tracker: Tracker
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Compute logits and descriptors of the training images, and of the test images if used."""
    started = time.perf_counter()
    train, count = _outputs(onnx, images.train), len(images.train)
    test: dict[str, np.ndarray] = {}
    if images.test is not None:
        test = _outputs(onnx, images.test)
        count += len(images.test)
    rate = count / (time.perf_counter() - started)
    tracker.log(Metric("time/descriptors_images_per_s", rate))
    return train, test


def _outputs(onnx: OnnxModel, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Compute logits and descriptors of images, each float32 [N, D]."""
    return {name: values.reshape(len(pixels), -1) for name, values in onnx.predict(pixels).items()}


def _best_kernel(
    kernels: Sequence[str], features: Features, methods: MethodRuns
) -> FittedClassifier:
    """Return the SVM with the most accurate kernel and settings inside train.

    The network overfits its training images, and among their descriptors every setting looks
    right: on the real split cross-validation says 91% where the test says 73%. So the images that
    it was not trained on decide, and cross-validation only where there are none.
    """
    candidates = [methods.cross_validate(kernel, features, on_held_out=True) for kernel in kernels]
    where = "held-out training images" if methods.validates else "cross-validation inside train"
    for svm in candidates:
        logger.info("%s kernel: %.1f%% right in %s", svm.kernel, 100 * svm.cv_accuracy, where)
    tried = [svm.selection for svm in candidates if svm.selection is not None]
    best = max(candidates, key=lambda svm: svm.cv_accuracy)
    # The kernel is chosen by the same images as its settings.
    return dataclasses.replace(best, selection=Selection.joined(tried))


def _check_kernels(kernels: Sequence[str], smallest: float, layers: str) -> None:
    """Raise ConfigError, before any training, for a kernel that the layer's output cannot take."""
    of_histograms = [kernel for kernel in kernels if KERNELS[kernel].of_histograms]
    if smallest < 0:
        raise ConfigError(
            f"the {of_histograms[0]} kernel takes no negative values, but layer {layers} gives "
            "them: choose linear or rbf, or a layer with relu"
        )
