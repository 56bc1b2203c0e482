"""Dense (fully convolutional) forms of a patch network: a grid of patches in one ONNX graph.

A layer that is linear in the pixels of P x P patches at stride s is a convolution with a P x P
kernel and stride s, and what follows it works on each patch alone (Long, Shelhamer and Darrell,
"Fully convolutional networks for semantic segmentation", 2015, section 3.1). Three forms compute
the same values, and which one is the fastest depends on the device and the geometry:

- ``patches``: patches copied as uint8, one matrix product;
- ``conv``: a convolution with the whole patch as its kernel;
- ``space_to_depth``: blocks of pixels, which neighbouring patches share, become channels first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata as distributions
from typing import Any

import numpy as np
import onnx

from scenetrack.data.patches import grid_patches
from scenetrack.errors import ExportError
from scenetrack.export.direct import build_graph
from scenetrack.export.pixels import BatchedPatches, GridSource, SpaceToDepth, StridedConv
from scenetrack.export.precision import with_precision
from scenetrack.export.steps import steps_to
from scenetrack.export.verify import VerifyReport, verify_against_keras
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.files import cache_dir, replacing
from scenetrack.system.foreign import parsed_json
from scenetrack.system.machine import available_cpus

logger = logging.getLogger(__name__)

FORMS: Mapping[str, type[GridSource]] = {
    "patches": BatchedPatches,
    "conv": StridedConv,
    "space_to_depth": SpaceToDepth,
}
# Enough to time a form within some 10%, few enough to be done in a moment.
_TIMED_IMAGES, _TIMED_RUNS = 16, 3


@dataclass(frozen=True)
class Dense:
    """Settings of a dense export.

    Attributes:
        stride: pixels between neighbouring patches.
        form: one of ``FORMS``, or "auto" for the fastest here.
        device: the device on which the forms are timed.
    """

    stride: int
    form: str = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class FormChoice:
    """The chosen form, and the milliseconds per image of each form that was timed."""

    form: str
    milliseconds: Mapping[str, float]

    def __str__(self) -> str:
        timed = ", ".join(f"{form} {value:.2f} ms" for form, value in self.milliseconds.items())
        return f"{self.form} (per image: {timed})" if timed else self.form


def build_dense(
    model: Any,
    tensors: Mapping[str, Any],
    stride: int,
    form: str,
    metadata: Mapping[str, str],
    *,
    image_size: int = 0,
) -> onnx.ModelProto:
    """Return the dense form of a patch network as a checked graph.

    ``images`` uint8 [N, H, W, 3], any H and W of at least P, become float32 [N, grid_h, grid_w,
    ...] for each output, with grid_h = (H - P) // stride + 1.

    Args:
        model: a Keras network that takes uint8 patches [N, P, P, 3].
        tensors: symbolic outputs of its layers by output name.
        stride: pixels between neighbouring patches.
        form: one of ``FORMS``.
        metadata: stored in the graph, with patch_size, stride and form.
        image_size: expected side of the images, for the estimate of memory; 0 for P.

    Raises:
        ExportError: a layer has no dense form, or the network's input is no square RGB patch.
    """
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3 or None in shape:
        raise ExportError(
            "a dense form requires a network that takes square RGB patches of one size. Received: "
            f"{model.name!r}, which takes {shape}"
        )
    builder = GraphBuilder(model.name)
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    source = FORMS[form](builder, images, shape, stride)
    graph = build_graph(
        source,
        model,
        tensors,
        {
            **metadata,
            "patch_size": str(shape[0]),
            "stride": str(stride),
            "form": form,
            "workspace_bytes": str(_workspace(shape, stride, tensors, image_size)),
        },
    )
    if graph is None:
        raise ExportError(
            f"every layer of a dense form must have an ONNX form, but {model.name!r} has a layer "
            f"without one in the form {form!r}: choose "
            f"{'--form patches, ' * (form != 'patches')}an earlier layer, or no --dense"
        )
    return graph


def export_dense(
    model: Any,
    tensors: Mapping[str, Any],
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    dense: Dense,
    metadata: Mapping[str, str],
    real_images: np.ndarray | None,
    seed: int,
    precision: str,
) -> tuple[onnx.ModelProto, FormChoice, VerifyReport]:
    """Return the fp32 graph of the form that is fastest in ``precision``, with its verification.

    Every form is compared with the network before it is timed.

    Raises:
        ExportError: no form exists, or a form differs from the network.
    """
    side = model.inputs[0].shape[1]
    lengths = free_lengths(model, dense)
    window = None if real_images is None else real_images[:, : lengths[0], : lengths[1]]
    size = int(metadata.get("image_size", 2 * side))
    if real_images is not None:
        size = real_images.shape[1]
    reference = on_grid(predict, side, dense.stride)
    graphs, reports = {}, {}
    for form in forms_of(side, dense.stride) if dense.form == "auto" else [dense.form]:
        try:
            graph = build_dense(model, tensors, dense.stride, form, metadata, image_size=size)
        except ExportError:
            if dense.form != "auto" or form == "patches":
                raise
            continue
        graphs[form] = graph
        reports[form] = verify_against_keras(
            graph.SerializeToString(), reference, window, seed, free_lengths=lengths
        )
    form, milliseconds = next(iter(graphs)), {}
    if len(graphs) > 1:
        candidates = {
            name: with_precision(graph, precision).SerializeToString()
            for name, graph in graphs.items()
        }
        timed = real_images
        if timed is None:
            generator = np.random.default_rng(seed)
            timed = generator.integers(0, 256, (_TIMED_IMAGES, size, size, 3), np.uint8)
        choice = choose_form(candidates, timed, dense.device)
        form, milliseconds = choice.form, dict(choice.milliseconds)
    return graphs[form], FormChoice(form, milliseconds), reports[form]


def free_lengths(model: Any, dense: Dense | None) -> tuple[int, int]:
    """Return the height and width of test images: a few patches, with pixels left over."""
    side, stride = model.inputs[0].shape[1], dense.stride if dense else 0
    return side + 3 * stride + stride // 2, side + 2 * stride


def forms_of(patch_size: int, stride: int) -> list[str]:
    """Return the forms that differ: without shared blocks "space_to_depth" equals "conv"."""
    return [form for form in FORMS if form != "space_to_depth" or math.gcd(patch_size, stride) > 1]


def choose_form(candidates: Mapping[str, bytes], images: np.ndarray, device: str) -> FormChoice:
    """Return the fastest of several graphs on ``images``, timed now or read from the cache.

    The choice is cached by device, geometry and versions, so that the same machine always
    computes the same digits.

    Args:
        candidates: serialised graphs by form.
        images: uint8 [M, H, W, 3] to time them on.
        device: of ``runtime.OnnxModel``.
    """
    models = {form: OnnxModel(content, device=device) for form, content in candidates.items()}
    provider = next(iter(models.values())).provider
    kept = cache_dir("forms") / f"{_geometry_key(candidates, images.shape, provider)}.json"
    try:
        remembered = parsed_json(kept.read_text(encoding="utf-8"))
        choice = FormChoice(str(remembered["form"]), dict(remembered["milliseconds"]))
        if choice.form in candidates:
            logger.info("dense form from an earlier measurement: %s", choice)
            return choice
    except (KeyError, OSError, TypeError, ValueError):
        pass  # not cached, or damaged: it is measured now
    timed = np.asarray(images[:_TIMED_IMAGES])
    milliseconds = {form: _milliseconds(model, timed) for form, model in models.items()}
    choice = FormChoice(min(milliseconds, key=milliseconds.__getitem__), milliseconds)
    content = {"form": choice.form, "milliseconds": milliseconds}
    with replacing(kept) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    logger.info("dense form on %s: %s", provider, choice)
    return choice


def on_grid(
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]], patch_size: int, stride: int
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return ``predict`` for whole images uint8 [N, H, W, 3] instead of patches [B, P, P, 3].

    The returned function gives arrays [N, grid_h, grid_w, ...].
    """

    def predict_images(images: np.ndarray) -> dict[str, np.ndarray]:
        patches = grid_patches(images, patch_size, stride)
        rows = predict(patches.reshape(-1, *patches.shape[3:]))
        return {name: v.reshape(*patches.shape[:3], *v.shape[1:]) for name, v in rows.items()}

    return predict_images


def _milliseconds(model: OnnxModel, images: np.ndarray) -> float:
    """Return the milliseconds per image in the fastest of a few runs over all images."""
    model.predict(images)
    seconds = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        model.predict(images)
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds) / len(images)


def _workspace(
    shape: tuple[int, ...], stride: int, tensors: Mapping[str, Any], image_size: int
) -> int:
    """Return the bytes of an image's patches: pixels as uint8 and float32, and every layer."""
    patches = ((max(image_size, shape[0]) - shape[0]) // stride + 1) ** 2
    layers = (math.prod(step.output.shape[1:]) for step in steps_to(tensors.values()))
    return int(patches * (5 * math.prod(shape) + 4 * sum(layers)))


def _geometry_key(candidates: Mapping[str, bytes], shape: tuple[int, ...], provider: str) -> str:
    """Return a file name from what the speed depends on: machine, versions, shapes, operators."""
    runtimes = [
        f"{name} {distributions.version(name)}"
        for name in ("onnxruntime", "onnxruntime-gpu")
        if any(True for _ in distributions.distributions(name=name))
    ]
    machine = [platform.machine(), platform.processor(), str(available_cpus()), provider, *runtimes]
    graphs = []
    for form, content in sorted(candidates.items()):
        graph = onnx.load_model_from_string(content).graph
        weights = [(list(item.dims), item.data_type) for item in graph.initializer if item.dims]
        graphs.append((form, weights, [node.op_type for node in graph.node]))
    text = json.dumps([machine, list(shape[1:]), graphs])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
