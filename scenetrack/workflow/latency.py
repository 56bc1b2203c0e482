"""How long one image takes through a method that was just learnt, as it would ship."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from scenetrack.classifiers import FittedClassifier
from scenetrack.delivery.bundle import build_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.encoders import ImageEncoder
from scenetrack.graphs.files import read_model
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.arrays import read_arrays
from scenetrack.workflow.load_method import Arrays, exported
from scenetrack.workflow.method_runs import END_TO_END

_Part = TypeVar("_Part")

_TIMED_RUNS = 20


def latency_ms(parts: Path, method: str, aggregation: str) -> float:
    """The median of some runs of the method's bundle with one image, on the CPU, in milliseconds.

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
        return _of_keras(parts / "model.keras")
    network = read_model(parts / "descriptors.onnx")
    about = {item.key: item.value for item in network.metadata_props}
    encodes = method != END_TO_END
    return ScenePipeline(
        network=network,
        classes=tuple(json.loads(about["classes"])),
        image_size=int(about["image_size"]),
        aggregation=aggregation,
        encoder=_part(parts / "encoder.npz", ImageEncoder.from_arrays) if encodes else None,
        classifier=_part(parts / method / "classifier.npz", FittedClassifier.from_arrays),
    )


def _part(path: Path, read: Callable[[Arrays], _Part]) -> _Part | None:
    """What the file holds; None where the method has no such part."""
    return read(read_arrays(path)) if path.is_file() else None


def _of_keras(path: Path) -> ScenePipeline:
    from scenetrack.networks.training import load_model

    network = load_model(path)
    return ScenePipeline(
        network=exported(network, None),
        classes=tuple(str(number) for number in range(network.output_shape[-1])),
        image_size=network.input_shape[1],
    )


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some runs after a first one."""
    work()
    times = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
