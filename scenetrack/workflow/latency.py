"""Latency of one image through a method's bundle."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scenetrack.delivery.bundle import build_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.workflow.keras_pipeline import keras_pipeline
from scenetrack.workflow.load_method import assemble, read_network
from scenetrack.workflow.method_runs import END_TO_END

_TIMED_RUNS = 20


def latency_ms(parts: Path, method: str, aggregation: str) -> float:
    """Return the latency of the method's bundle for one image on the CPU, in milliseconds.

    Args:
        parts: folder of what the stage logged: descriptors.onnx and encoder.npz, or model.keras
            of a stage that is one method; and of a method classifier.npz in a folder of its name.
        method: the name; empty where the stage is one method.
        aggregation: of the target, one of ``config.AGGREGATIONS``, or "".

    Raises:
        ExportError: the method makes no valid graph.
    """
    pipeline = _pipeline(parts, method, aggregation)
    model = OnnxModel(build_bundle(pipeline, {}).SerializeToString(), device="cpu")
    size = pipeline.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    return milliseconds(lambda: model.run(images=image))


def _pipeline(parts: Path, method: str, aggregation: str) -> ScenePipeline:
    if not method:
        from scenetrack.networks.training import load_model  # needs Keras

        network = load_model(parts / "model.keras")
        return keras_pipeline(network, [str(k) for k in range(network.output_shape[-1])])
    encoder, classifier = parts / "encoder.npz", parts / method / "classifier.npz"
    encodes = method != END_TO_END and encoder.is_file()
    return assemble(
        read_network(parts / "descriptors.onnx"),
        encoder if encodes else None,
        classifier if classifier.is_file() else None,
        aggregation=aggregation,
    )


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median time of ``work`` in milliseconds, after a first call."""
    work()
    times = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
