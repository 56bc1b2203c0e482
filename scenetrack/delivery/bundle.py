"""A finished method as ONE graph: images of any size in, class probabilities and label out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scenetrack.errors import ExportError, ModelError
from scenetrack.export.resize import resize_in_graph
from scenetrack.graphs.builder import OPSET, GraphBuilder, Shape
from scenetrack.graphs.runtime import WORKSPACE, OnnxModel

if TYPE_CHECKING:  # the pipeline needs scikit-learn, whose import takes seconds
    from scenetrack.delivery.pipeline import ScenePipeline

KIND, EVIDENCE = "bundle", "evidence"
_EXPLAIN = "explain"

# Both sides compute the scores in float64 from the same descriptors and visual words; what is left
# is the order of sums and the rounding of the graph's outputs to float32.
TOLERANCE = 1e-5
BATCH_SIZES = (1, 16)


@dataclass(frozen=True)
class BundleReport:
    """How a bundle compares with its pipeline.

    Attributes:
        images: how many were compared, at every batch size.
        batch_sizes: at which.
        max_difference: the largest difference of a score.
        scores: float64 [N, C], those of the pipeline.
    """

    images: int
    batch_sizes: tuple[int, ...]
    max_difference: float
    scores: NDArray[np.float64] = field(repr=False)


def build_bundle(pipeline: ScenePipeline, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return one graph that does what ``pipeline`` does, resizing included.

    Its input is ``images`` uint8 [N, H, W, 3], any N, H and W of at least 1; its outputs are
    ``probabilities`` float32 [N, C], ``label`` int64 [N], an index into the classes, and
    ``scores`` float32 [N, C].

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
    if own.get(WORKSPACE, "").isdecimal():
        own[WORKSPACE] = str(int(own[WORKSPACE]) + _output_bytes(pipeline))
    return builder.build(
        {
            **own,
            **metadata,
            "kind": KIND,
            "classes": json.dumps(list(pipeline.classes)),
            "image_size": str(pipeline.image_size),
            "aggregation": pipeline.aggregation,
            "temperature": repr(float(pipeline.temperature)),
            EVIDENCE: EVIDENCE if pipeline.has_evidence else "",
        }
    )


def with_evidence(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a bundle with a further output ``evidence`` float32 [N, grid_h, grid_w, C].

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
    for constant in explained.graph.initializer:
        if constant.name == _EXPLAIN:
            constant.CopyFrom(numpy_helper.from_array(np.array(True), _EXPLAIN))
    if EVIDENCE not in [item.name for item in model.graph.output]:
        shape = ["batch", "grid_height", "grid_width", None]
        output = helper.make_tensor_value_info(EVIDENCE, TensorProto.FLOAT, shape)
        explained.graph.output.append(output)
    return explained


def verify_bundle(
    model: onnx.ModelProto, pipeline: ScenePipeline, images: NDArray[np.uint8]
) -> BundleReport:
    """Hold a bundle against its pipeline, one image at a time and in batches.

    Args:
        images: uint8 [N, S, S, 3], N > 0; may be a memory map.

    Raises:
        ExportError: a label differs, or a score or probability by more than TOLERANCE.
    """
    session = OnnxModel(model.SerializeToString(), device=pipeline.device)
    expected = pipeline.scores(images)
    probabilities = pipeline.probabilities(expected)
    differences = []
    for size in BATCH_SIZES:
        actual = session.predict(images, size)
        wrong = int(np.sum(actual["label"] != expected.argmax(axis=1)))
        difference = float(np.abs(actual["scores"] - expected).max())
        off = float(np.abs(actual["probabilities"] - probabilities).max())
        # Written so that NaN fails.
        if wrong or not (difference <= TOLERANCE and off <= TOLERANCE):
            raise ExportError(
                f"a bundle must give the labels of its pipeline and scores within {TOLERANCE:g}, "
                f"but {wrong} of {len(images)} labels differ, scores by {difference:.3g} and "
                f"probabilities by {off:.3g} at batch size {size}: nothing was written; please "
                "report the method"
            )
        differences.append(difference)
    return BundleReport(len(images), BATCH_SIZES, max(differences), expected)


def _scores(builder: GraphBuilder, pipeline: ScenePipeline, outputs: Mapping[str, str]) -> str:
    """Return the class scores, float64 [N, C]; add the evidence where patches have any."""
    if pipeline.classifier is None:
        return _network_scores(builder, pipeline, outputs["logits"])
    descriptors = outputs["descriptors"]
    if pipeline.encoder is None:
        flat = _reshape(builder, descriptors, [0, -1])
        return pipeline.classifier.to_graph(builder, flat).scores
    local = _reshape(builder, descriptors, [0, len(pipeline.encoder.positions), -1])
    features, words = pipeline.encoder.to_graph(builder, local)
    tensors = pipeline.classifier.to_graph(builder, features)
    if not pipeline.has_evidence:
        return tensors.scores
    classifier = pipeline.classifier
    _hide_evidence(
        builder,
        descriptors,
        len(pipeline.classes),
        lambda inner: classifier.evidence_in_graph(inner, tensors, words),
    )
    return tensors.scores


def _network_scores(builder: GraphBuilder, pipeline: ScenePipeline, logits: str) -> str:
    values = builder.node("Cast", logits, to=TensorProto.DOUBLE)
    if not pipeline.aggregation:
        return values
    classes = len(pipeline.classes)

    def evidence(inner: GraphBuilder) -> str:
        axis = inner.constant("axis", np.array([-1], np.int64))
        return inner.node("Sub", logits, inner.node("ReduceMean", logits, axis, keepdims=1))

    if pipeline.has_evidence:
        _hide_evidence(builder, logits, classes, evidence)
    return _aggregated(builder, _reshape(builder, values, [0, -1, classes]), pipeline)


def _hide_evidence(
    builder: GraphBuilder, grid: str, classes: int, compute: Callable[[GraphBuilder], str]
) -> None:
    """Add the tensor ``evidence``, which is computed only where the constant ``explain`` says so.

    ONNX Runtime computes every node, whether or not an output needs it; but of an If on a constant
    it keeps one branch.

    Args:
        grid: a tensor [N, grid_h, grid_w, ...].
        compute: adds the evidence, float32 [N, n, classes].
    """

    def explained(inner: GraphBuilder) -> str:
        patches = inner.node("Shape", grid, start=0, end=3)
        last = inner.constant("classes", np.array([classes], np.int64))
        return inner.node("Reshape", compute(inner), inner.node("Concat", patches, last, axis=0))

    def left_out(inner: GraphBuilder) -> str:
        return inner.constant("none", np.zeros((0, 0, 0, classes), np.float32))

    result = builder.choose(builder.constant(_EXPLAIN, np.array(False)), explained, left_out)
    builder.node("Identity", result, name=EVIDENCE)


def _output_bytes(pipeline: ScenePipeline) -> int:
    """Return the bytes that an image's outputs of the network take, inner tensors of the bundle."""
    size = pipeline.image_size
    outputs = pipeline.session.run(images=np.zeros((1, size, size, 3), np.uint8))
    return sum(values.nbytes for values in outputs.values())


def _reshape(builder: GraphBuilder, tensor: str, shape: list[int]) -> str:
    return builder.node("Reshape", tensor, builder.constant("shape", np.array(shape, np.int64)))


def _aggregated(builder: GraphBuilder, logits: str, pipeline: ScenePipeline) -> str:
    """Add ``descriptors.aggregate`` to the graph: float64 [N, n, C] to [N, C]."""
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
    """Convert the network to the bundle's opset: Keras' own exporter knows older ones only."""
    versions = {item.domain: item.version for item in network.opset_import}
    if versions.get("") == OPSET:
        return network
    try:
        return onnx.version_converter.convert_version(network, OPSET)
    except Exception as error:  # it raises all kinds
        raise ExportError(
            f"a network that can be brought to opset {OPSET} is required, but its layers cannot: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
