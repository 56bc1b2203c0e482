"""A finished method as ONE graph: images of any size in, class probabilities and label out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scenetrack.bundle.resize import resize_in_graph
from scenetrack.errors import ExportError, ModelError
from scenetrack.graph import OPSET, GraphBuilder, Shape
from scenetrack.pipeline import BATCH_SIZE, ScenePipeline
from scenetrack.runtime import OnnxModel

KIND, EVIDENCE = "bundle", "evidence"

# Both sides compute the scores in float64 from the same descriptors and visual words; what is left
# is the order of sums and the rounding of the graph's outputs to float32.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class BundleReport:
    """How a bundle compares with its pipeline.

    Attributes:
        images: how many were compared, at every batch size.
        batch_sizes: at which.
        max_difference: the largest difference of a score.
    """

    images: int
    batch_sizes: tuple[int, ...]
    max_difference: float


def build_bundle(pipeline: ScenePipeline, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """One graph that does what ``pipeline`` does, resizing included.

    Its input is ``images`` uint8 [N, H, W, 3], any N, H and W; its outputs are ``probabilities``
    float32 [N, C], ``label`` int64 [N], an index into the classes, and ``scores`` float32 [N, C].

    Args:
        pipeline: the finished method.
        metadata: stored in the file besides kind, classes, image_size, temperature, evidence and
            what the network's own metadata say.

    Raises:
        ExportError: the parts make no valid graph.
    """
    builder = GraphBuilder(KIND)
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    resized = resize_in_graph(builder, images, pipeline.image_size)
    network = _at_opset(pipeline.network)
    outputs = builder.include(network, {network.graph.input[0].name: resized})
    scores = _scores(builder, pipeline, outputs)
    _declare_outputs(builder, pipeline, scores)
    own = {item.key: item.value for item in pipeline.network.metadata_props}
    return builder.build(
        {
            **own,
            **metadata,
            "kind": KIND,
            "classes": json.dumps(list(pipeline.classes)),
            "image_size": str(pipeline.image_size),
            "aggregation": pipeline.aggregation,
            "temperature": repr(float(pipeline.temperature)),
            EVIDENCE: "",
        }
    )


def with_evidence(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a bundle with a further output ``evidence`` float32 [N, grid_h, grid_w, C].

    It says how much each patch spoke for each class.

    Raises:
        ModelError: the model holds no evidence: it is no bundle, or one without patches.
    """
    if not any(EVIDENCE in node.output for node in model.graph.node):
        raise ModelError(
            "a bundle of a method on patches is required to explain its verdicts. Received: a "
            "model that holds no evidence"
        )
    explained = onnx.ModelProto()
    explained.CopyFrom(model)
    shape = ["batch", "grid_height", "grid_width", None]
    explained.graph.output.append(helper.make_tensor_value_info(EVIDENCE, TensorProto.FLOAT, shape))
    return explained


def verify_bundle(
    model: onnx.ModelProto, pipeline: ScenePipeline, images: NDArray[np.uint8]
) -> BundleReport:
    """Hold a bundle against its pipeline, one image at a time and in batches.

    Args:
        images: uint8 [N, S, S, 3], N > 0; may be a memory map.

    Raises:
        ExportError: a label differs, a score differs by more than TOLERANCE, or a probability by
            more than that.
    """
    session = OnnxModel(model.SerializeToString(), device=pipeline.device)
    expected = pipeline.scores(images)
    probabilities = pipeline.probabilities(expected)
    difference = 0.0
    for size in (1, BATCH_SIZE):
        came = session.predict(images, size)
        wrong = int(np.sum(came["label"] != expected.argmax(axis=1)))
        difference = max(
            difference,
            float(np.abs(came["scores"] - expected).max()),
        )
        off = float(np.abs(came["probabilities"] - probabilities).max())
        # Written so that NaN fails.
        if wrong or not max(difference, off) <= TOLERANCE:
            raise ExportError(
                f"a bundle must give the labels of its pipeline and scores within {TOLERANCE:g}, "
                f"but {wrong} of {len(images)} labels differ, scores by {difference:.3g} and "
                f"probabilities by {off:.3g} at batch size {size}: nothing was written; please "
                "report the method"
            )
    return BundleReport(len(images), (1, BATCH_SIZE), difference)


def _scores(builder: GraphBuilder, pipeline: ScenePipeline, outputs: Mapping[str, str]) -> str:
    """The class scores, float64 [N, C]."""
    if pipeline.classifier is None:
        logits = builder.node("Cast", outputs["logits"], to=TensorProto.DOUBLE)
        if not pipeline.aggregation:
            return logits
        flat = builder.constant("patches", np.array([0, -1, len(pipeline.classes)], np.int64))
        return _aggregated(builder, builder.node("Reshape", logits, flat), pipeline)
    descriptors = outputs["descriptors"]
    if pipeline.encoder is None:
        flat = builder.constant("features", np.array([0, -1], np.int64))
        return pipeline.classifier.to_graph(builder, builder.node("Reshape", descriptors, flat))
    width = builder.node("Shape", descriptors, start=-1)
    keep = builder.constant("patches", np.array([0, -1], np.int64))
    shape = builder.node("Concat", keep, width, axis=0)
    local = builder.node("Reshape", descriptors, shape)
    histograms, _ = pipeline.encoder.to_graph(builder, local)
    return pipeline.classifier.to_graph(builder, histograms)


def _aggregated(builder: GraphBuilder, logits: str, pipeline: ScenePipeline) -> str:
    """The twin of ``descriptors.aggregate``: float64 [N, n, C] to [N, C]."""
    axis = builder.constant("axis", np.array([1], np.int64))
    if pipeline.aggregation != "vote":
        reduce = "ReduceMean" if pipeline.aggregation == "mean" else "ReduceMax"
        return builder.node(reduce, logits, axis, keepdims=0)
    best = builder.node("ArgMax", logits, axis=2, keepdims=1)
    labels = builder.constant("labels", np.arange(len(pipeline.classes)))
    votes = builder.node("Cast", builder.node("Equal", best, labels), to=TensorProto.DOUBLE)
    return builder.node("ReduceMean", votes, axis, keepdims=0)


def _declare_outputs(builder: GraphBuilder, pipeline: ScenePipeline, scores: str) -> None:
    temperature = builder.constant("temperature", np.array(float(pipeline.temperature)))
    shares = builder.node("Softmax", builder.node("Div", scores, temperature), axis=1)
    shape: Shape = ["batch", len(pipeline.classes)]
    for name, tensor in (("probabilities", shares), ("scores", scores)):
        single = builder.node("Cast", tensor, name=f"{name}/float32", to=TensorProto.FLOAT)
        builder.output(name, single, np.float32, shape)
    label = builder.node("ArgMax", scores, axis=1, keepdims=0)
    builder.output("label", label, np.int64, ["batch"])


def _at_opset(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network in the bundle's opset: Keras' own exporter knows older ones only."""
    versions = {item.domain: item.version for item in network.opset_import}
    if versions.get("") == OPSET:
        return network
    return onnx.version_converter.convert_version(network, OPSET)
