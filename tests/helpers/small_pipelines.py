"""Small finished methods without any training: random networks, words and SVMs that fit."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto

from scenetrack.classifiers import FittedClassifier, refit
from scenetrack.config import COLOURS, KERNELS
from scenetrack.data.patches import PatchGrid
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.encoders import BagOfWords, DescriptorPca, ImageEncoder, LocalEncoder
from scenetrack.export.scales import at_scales
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel

CLASSES = ("coast", "forest", "street")
SIZE, PATCH, STRIDE, WIDTH = 24, 8, 4, 6
GAMMA = {"linear": 0.0, "rbf": 3.0, "chi2": 2.0, "intersection": 0.0}
FITTED_IMAGES = 36
SIZES = (PatchGrid(SIZE, PATCH, STRIDE), PatchGrid(SIZE // 2, PATCH, STRIDE))
SIFT = {colour: SiftGrid(SIZE, 4, (3, 5), colour, 1.0) for colour in COLOURS}


def dense_network(
    seed: int = 0, *, patch: int = PATCH, stride: int = STRIDE, width: int = WIDTH
) -> onnx.ModelProto:
    """A convolution and relu as descriptors of patches, and logits of them."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder("dense")
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    pixels = builder.node("Cast", images, to=TensorProto.FLOAT)
    planes = builder.node("Transpose", pixels, perm=[0, 3, 1, 2])
    kernel = rng.standard_normal((width, 3, patch, patch)).astype(np.float32) / (100 * patch)
    values = builder.node("Conv", planes, builder.constant("kernel", kernel), strides=[stride] * 2)
    last = builder.node("Transpose", builder.node("Relu", values), perm=[0, 2, 3, 1])
    weights = rng.standard_normal((width, len(CLASSES))).astype(np.float32)
    logits = builder.node("MatMul", last, builder.constant("weights", weights))
    grid = ["batch", "grid_height", "grid_width"]
    builder.output("descriptors", last, np.float32, [*grid, width])
    builder.output("logits", logits, np.float32, [*grid, len(CLASSES)])
    return builder.build({"patch_size": str(patch), "stride": str(stride), "layer": "hidden"})


def whole_network(seed: int = 0) -> onnx.ModelProto:
    """The mean colour as descriptor of an image of SIZE px, and logits of it."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder("whole")
    images = builder.input("images", np.uint8, ["batch", SIZE, SIZE, 3])
    pixels = builder.node("Cast", images, to=TensorProto.FLOAT)
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    means = builder.node("ReduceMean", pixels, axes, keepdims=0)
    weights = rng.standard_normal((3, len(CLASSES))).astype(np.float32) / 50
    logits = builder.node("MatMul", means, builder.constant("weights", weights))
    builder.output("descriptors", means, np.float32, ["batch", 3])
    builder.output("logits", logits, np.float32, ["batch", len(CLASSES)])
    return builder.build({"layer": "mean"})


def scenes(count: int, size: int = SIZE, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, size, size, 3] whose contrast and colour hint at their labels int64 [N]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    noise = rng.standard_normal((count, size, size, 3)) * (20 + 25 * labels)[:, None, None, None]
    colour = 40 * np.eye(3)[labels][:, None, None]
    return np.clip(110 + colour + noise, 0, 255).astype(np.uint8), labels


def svm(
    features: np.ndarray,
    labels: np.ndarray,
    kernel: str,
    *,
    preparation: str,
    c: float = 10.0,
    explicit_map: bool = False,
) -> FittedClassifier:
    """An SVM with settings that nobody searched for."""
    first = "none" if KERNELS[kernel].of_histograms else preparation
    none, classes = np.zeros((1, 1)), np.unique(labels)
    gamma = GAMMA[kernel]
    table = np.array([[c, gamma, 1.0, 0.0]])
    settings = FittedClassifier(
        kernel=kernel,
        gamma=gamma,
        preparation=first,
        mean=none[0],
        scale=none[0],
        support=none.astype(np.float32),
        dual=none,
        intercept=none[0],
        classes=classes,
        C=c,
        cv_table=table,
        seed=0,
        explicit_map=explicit_map,
        cv_scope="classifier only",
    )
    return refit(settings, features, labels)


def centres(count: int) -> np.ndarray:
    """Positions float32 [count, 2] of descriptors on the diagonal of an image."""
    return np.repeat((np.arange(count, dtype=np.float32)[:, None] + 0.5) / count, 2, axis=1)


def scene_encoder(
    descriptors: np.ndarray, count: int, words: int = 16, pca: int = 4
) -> ImageEncoder:
    """PCA (0: none) and words of ``descriptors`` float32 [N, D], for images with ``count``."""
    reduction = DescriptorPca(pca).fit(descriptors) if pca else None
    projected = reduction.transform(descriptors) if reduction else descriptors
    bow = BagOfWords(words, iterations=5).fit(projected)
    return ImageEncoder(bow, ("1x1",), centres(count), reduction)


def sizes_network() -> onnx.ModelProto:
    """The dense network over images of SIZE px and of half of it: outputs [N, n, ...]."""
    return at_scales(dense_network(), SIZES, {})


def sift_network(colour: str = "grey") -> onnx.ModelProto:
    """Dense SIFT, bytes without any logits."""
    return sift_graph(SIFT[colour], {})


def encoded_pipeline(
    network: onnx.ModelProto,
    positions: np.ndarray,
    encoder: LocalEncoder,
    kernel: str = "linear",
    **learn,
) -> ScenePipeline:
    """An SVM on what ``encoder`` learnt of all descriptors of a few images.

    ``positions`` float32 [n, 2] are those of an image's descriptors; ``learn`` are further
    arguments of ``ImageEncoder.learn``.
    """
    images, labels = scenes(FITTED_IMAGES)
    local = OnnxModel(network.SerializeToString(), device="cpu").run(images=images)["descriptors"]
    settings = {"levels": ("1x1",), "pca": 0, "square_root": False, "position_weight": 0.0}
    learnt = ImageEncoder.learn(
        local.reshape(-1, local.shape[-1]),
        np.tile(positions, (len(local), 1)),
        encoder,
        positions=positions,
        **(settings | learn),
    ).learn_idf([local])
    features = learnt.encode(local)
    classifier = svm(features, labels, kernel, preparation=learnt.preparation)
    return ScenePipeline(
        network,
        CLASSES,
        SIZE,
        aggregation="mean",
        encoder=learnt,
        classifier=classifier,
        temperature=0.7,
    )


def patch_pipeline(kernel: str = "", *, pca: int = 4, c: float = 10.0, **parts) -> ScenePipeline:
    """Visual words with an SVM of ``kernel``; the network's own verdict where it is empty."""
    network = dense_network()
    parts = {"aggregation": "mean", "temperature": 0.7, **parts}
    if not kernel:
        return ScenePipeline(network, CLASSES, SIZE, **parts)
    images, labels = scenes(FITTED_IMAGES)
    values = OnnxModel(network.SerializeToString(), device="cpu").run(images=images)["descriptors"]
    local = values.reshape(len(images), -1, WIDTH)
    encoder = scene_encoder(local.reshape(-1, WIDTH), local.shape[1], pca=pca)
    classifier = svm(encoder.encode(local), labels, kernel, preparation="square_root", c=c)
    return ScenePipeline(network, CLASSES, SIZE, encoder=encoder, classifier=classifier, **parts)


def image_pipeline(kernel: str = "", **parts) -> ScenePipeline:
    """An SVM on a whole image's descriptor, or the network's own verdict."""
    network = whole_network()
    images, labels = scenes(FITTED_IMAGES)
    values = OnnxModel(network.SerializeToString(), device="cpu").run(images=images)["descriptors"]
    classifier = svm(values, labels, kernel, preparation="standardise") if kernel else None
    return ScenePipeline(network, CLASSES, SIZE, classifier=classifier, **parts)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """A model's keys and values."""
    return {item.key: item.value for item in model.metadata_props}


def classes_of(model: onnx.ModelProto) -> list[str]:
    """The class names that a bundle carries."""
    names: list[str] = json.loads(metadata(model)["classes"])
    return names
