"""Export of a Keras network up to named layers as a verified ONNX graph on uint8 images."""

from __future__ import annotations

import difflib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

from scenetrack.errors import ExportError, ModelError
from scenetrack.export.dense import Dense, FormChoice, export_dense, free_lengths
from scenetrack.export.direct import build_graph
from scenetrack.export.layers import is_identity
from scenetrack.export.pixels import WholeImages
from scenetrack.export.precision import with_precision
from scenetrack.export.steps import layer_tensors, producer
from scenetrack.export.verify import verify_against_keras, verify_precision
from scenetrack.graphs.builder import IR_VERSION, OPSET, GraphBuilder, check_model
from scenetrack.system.files import ensure_writable, replacing

logger = logging.getLogger(__name__)

INPUT = "images"
# The newest opset that Keras' exporter supports.
KERAS_OPSET = 18


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: the file.
        outputs: shape by output name, -1 where any length is accepted.
        errors: largest error of each output in fp32, relative to its range.
        seconds: wall time.
        builder: "direct" for a graph built layer by layer, "keras" for Keras' own exporter.
        choice: which dense form was taken and why; None for a plain export.
        cosine: mean cosine of each output with the fp32 graph's; empty for fp32.
    """

    path: Path
    outputs: Mapping[str, tuple[int, ...]]
    errors: Mapping[str, float]
    seconds: float
    builder: str
    choice: FormChoice | None = None
    cosine: Mapping[str, float] = field(default_factory=dict)


def layer_names(model: Any) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Return name, class and output shape of each layer but the input; None means any length.

    Raises:
        ModelError: the model is neither functional nor a built Sequential.
    """
    tensors = layer_tensors(model)
    return [
        (layer.name, type(layer).__name__, tuple(tensors[layer.name].shape))
        for layer in model.layers
        if layer.name in tensors
    ]


def find_layer(model: Any, name: str) -> Any:
    """Return the layer called ``name``, or the last hidden layer for "".

    The last hidden layer is the layer before the last Dense layer, not counting dropout.

    Raises:
        ModelError: there is no such layer, or no hidden one; the message lists the layers.
    """
    if not name:
        return _last_hidden(model)
    tensors = layer_tensors(model)
    if name not in tensors:
        near = difflib.get_close_matches(name, tensors, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"layer must be one of: {', '.join(tensors)}. Received: {name!r}{hint}")
    return model.get_layer(name)


def find_layers(model: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the layers called ``names``, or of the last hidden layer if empty.

    Raises:
        ModelError: there is no such layer, or a layer is named twice.
    """
    found = tuple(find_layer(model, name).name for name in names or ("",))
    if len(set(found)) < len(found):
        raise ModelError(f"each layer must be named once. Received: {', '.join(names)}")
    return found


def joined_output(model: Any, layers: Sequence[str]) -> Any:
    """Return the outputs of layers concatenated to [N, D]; of a single layer, its own output.

    Raises:
        ModelError: a layer does not exist.
    """
    import keras

    every = layer_tensors(model)
    tensors = [every[find_layer(model, layer).name] for layer in layers]
    if len(tensors) == 1:
        return tensors[0]
    flat = [t if len(t.shape) == 2 else keras.layers.Flatten()(t) for t in tensors]
    return keras.layers.Concatenate()(flat)


def export_truncated(
    model: Any,
    outputs: Mapping[str, str | Sequence[str]],
    path: Path,
    *,
    metadata: Mapping[str, str],
    real_images: np.ndarray | None,
    seed: int = 0,
    dense: Dense | None = None,
    precision: str = "fp32",
) -> ExportReport:
    """Verify the network up to the named layers as an ONNX graph and write it to a file.

    The graph's input is ``images`` uint8 [N, H, W, 3], with any N; the cast to float32 is
    inside. A network with a layer that ``layers.registry`` lacks goes through Keras' own exporter.

    Args:
        model: a functional or built Sequential Keras model with one input.
        outputs: layer by output name ("" for the last hidden layer), or several to concatenate.
        path: the ``.onnx`` file to write; unchanged if the verification fails.
        metadata: stored in the file.
        real_images: uint8 [M, H, W, 3] to verify on besides random ones; None: random ones only.
            For a dense form they are whole images, on which the forms are also timed.
        seed: of the random images.
        dense: settings of the dense form, which takes images of any size; None for no such form.
        precision: "fp32"; "fp16" and "int8" are derived from the verified fp32 graph.

    Raises:
        InputError: the folder of ``path`` cannot be written to.
        ModelError: a layer does not exist, the model has no layer graph with one input, or the
            real images have another size.
        ExportError: the graph cannot be made, is invalid or differs from the network.
    """
    started = time.perf_counter()
    ensure_writable(path.parent)
    tensors = {
        name: joined_output(model, (layers,) if isinstance(layers, str) else layers)
        for name, layers in outputs.items()
    }
    predict = _predictor(model, tensors)
    if dense is None:
        graph, builder, choice = *_build(model, tensors, metadata), None
        report = verify_against_keras(graph.SerializeToString(), predict, real_images, seed)
    else:
        graph, choice, report = export_dense(
            model, tensors, predict, dense, metadata, real_images, seed, precision
        )
        builder = "direct"
    cosine: Mapping[str, float] = {}
    if precision != "fp32":
        reduced = with_precision(graph, precision)
        cosine = verify_precision(graph, reduced, real_images, seed, free_lengths(model, dense))
        graph = reduced
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    shapes = {item.name: _lengths(item) for item in graph.graph.output}
    seconds = time.perf_counter() - started
    logger.debug("exported %s (%s, %s) in %.2f s", path, builder, precision, seconds)
    return ExportReport(path, shapes, report.max_relative_error, seconds, builder, choice, cosine)


def _build(
    model: Any, tensors: Mapping[str, Any], metadata: Mapping[str, str]
) -> tuple[onnx.ModelProto, str]:
    """Return the graph and which builder made it: "direct" or "keras"."""
    graph = _build_direct(model, tensors, metadata)
    if graph is not None:
        return graph, "direct"
    return _build_with_keras(model, tensors, metadata), "keras"


def _predictor(
    model: Any, tensors: Mapping[str, Any]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return the prediction function of the network up to the tensors, in float32 on the CPU."""
    import keras

    part = keras.Model(model.inputs[0], dict(tensors))

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        # A GPU's TF32 products would differ by more than the verification allows.
        with keras.device("cpu:0"):
            results = part(images, training=False)
        return {name: np.asarray(values) for name, values in results.items()}

    return predict


def _build_direct(
    model: Any, tensors: Mapping[str, Any], metadata: Mapping[str, str]
) -> onnx.ModelProto | None:
    """Return the graph built layer by layer; None where a layer has no ONNX form."""
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        return None
    builder = GraphBuilder(model.name)
    images = builder.input(INPUT, np.uint8, ["batch", *shape])
    return build_graph(WholeImages(builder, images, shape), model, tensors, metadata)


def _build_with_keras(
    model: Any, tensors: Mapping[str, Any], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the graph made by Keras' exporter, with our names of input and outputs."""
    import keras

    source = model.inputs[0]
    part = keras.Model(source, list(tensors.values()))
    signature = [keras.InputSpec(shape=tuple(source.shape), dtype="uint8", name=INPUT)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            with warnings.catch_warnings():
                # It warns of NumPy names in its own code, which users cannot change.
                warnings.simplefilter("ignore", FutureWarning)
                part.export(
                    str(file),
                    format="onnx",
                    verbose=False,
                    input_signature=signature,
                    opset_version=KERAS_OPSET,
                )
            graph = onnx.load(file)
        except Exception as error:  # its many stages raise errors of all types
            reason = " ".join(str(error).split())[:300]
            raise ExportError(
                f"an exportable network is required, but Keras' exporter fails for "
                f"{model.name!r} ({reason}): replace the layers that it does not support"
            ) from error
    graph.graph.name = model.name
    check_model(graph)
    graph = _in_own_opset(graph)
    _name_outputs(graph, list(tensors))
    onnx.helper.set_model_props(graph, dict(metadata))
    check_model(graph)
    return graph


def _in_own_opset(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the graph to the package's opset and IR, which Keras' exporter does not support."""
    try:
        converted = onnx.version_converter.convert_version(graph, OPSET)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"a graph of opset {OPSET} is required, but {graph.graph.name!r} cannot be converted "
            f"to it ({reason}): replace the layers for which Keras' exporter writes these operators"
        ) from error
    converted.ir_version = IR_VERSION
    used = {node.domain for node in converted.graph.node}
    kept = [item for item in converted.opset_import if not item.domain or item.domain in used]
    del converted.opset_import[:]
    converted.opset_import.extend(kept)
    return converted


def _name_outputs(graph: onnx.ModelProto, names: Sequence[str]) -> None:
    for output, name in zip(graph.graph.output, names, strict=True):
        graph.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name


def _last_hidden(model: Any) -> Any:
    tensors = layer_tensors(model)
    layers = _chain_back(model.outputs[0])
    for layer in layers:
        if type(layer).__name__ == "Dense":
            break
    hidden = next((layer for layer in layers if not is_identity(layer)), None)
    if hidden is None:
        raise ModelError(
            f"model {model.name!r} has no hidden layer before a last Dense one: name a layer of "
            f"{', '.join(tensors)}"
        )
    return hidden


def _chain_back(tensor: Any) -> Any:
    """Yield the layers before ``tensor``, last first, as long as each has one input."""
    step = producer(tensor)
    while step:
        yield step.layer
        step = producer(step.inputs[0]) if len(step.inputs) == 1 else None


def _lengths(item: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the shape of a graph's output, -1 where any length is accepted."""
    dims = item.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
