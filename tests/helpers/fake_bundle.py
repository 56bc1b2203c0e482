"""A bundle that anyone can compute by hand: the mean colour of an image decides its class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from scenetrack.graphs.builder import GraphBuilder

CLASSES = ("red", "green", "blue")
SIZE, PATCH, STRIDE = 24, 8, 4


def fake_bundle(
    path: Path, *, evidence: bool = False, white: str = "", dropped: int = 0, **metadata: str
) -> Path:
    """Write a bundle whose score of each class is a hundredth of the mean of its colour.

    Args:
        path: of the file.
        evidence: hold the tensor of that name: the mean of each patch, less 128, in hundredths.
        white: operator that makes the scores of white images NaN or infinite: Log or Reciprocal.
        dropped: images at the beginning of a batch that no row is given for.
        metadata: instead of the bundle's own.
    """
    builder = GraphBuilder("fake")
    images = builder.input("images", np.uint8, ["batch", "height", "width", 3])
    hundredth = builder.constant("hundredth", np.float32(0.01))
    values = builder.node("Mul", builder.node("Cast", images, to=1), hundredth)
    axes = builder.constant("axes", np.array([1, 2], np.int64))
    scores = builder.node("ReduceMean", values, axes, keepdims=0)
    if white:
        nothing = builder.constant("nothing", np.float32(0))
        missing = builder.node("Sub", builder.constant("full", np.float32(2.545)), scores)
        missing = builder.node("Max", missing, nothing) if white == "Reciprocal" else missing
        bad = builder.node(white, missing)
        added = builder.node("Mul", bad, nothing) if white == "Log" else builder.node("Floor", bad)
        scores = builder.node("Add", scores, added)
    if dropped:
        start, end = (builder.constant("at", np.array([k], np.int64)) for k in (dropped, 2**31))
        scores = builder.node("Slice", scores, start, end, builder.constant("first", np.array([0])))
    if evidence:
        channels_first = builder.node("Transpose", values, perm=[0, 3, 1, 2])
        pooled = builder.node(
            "AveragePool", channels_first, kernel_shape=[PATCH, PATCH], strides=[STRIDE, STRIDE]
        )
        middle = builder.constant("middle", np.float32(1.28))
        centred = builder.node("Sub", pooled, middle)
        builder.node("Transpose", centred, name="evidence", perm=[0, 2, 3, 1])
    probabilities = builder.node("Softmax", scores, axis=-1)
    label = builder.node("ArgMax", scores, axis=-1, keepdims=0)
    rows = "rows" if dropped else "batch"
    builder.output("probabilities", probabilities, np.float32, [rows, 3])
    builder.output("label", label, np.int64, [rows])
    builder.output("scores", scores, np.float32, [rows, 3])
    about = {
        "kind": "bundle",
        "classes": json.dumps(CLASSES),
        "image_size": str(SIZE),
        "patch_size": str(PATCH),
        "stride": str(STRIDE),
        "evidence": "evidence" if evidence else "",
    }
    path.write_bytes(builder.build(about | metadata).SerializeToString())
    return path


def paint(path: Path, colour: tuple[int, int, int], side: int = SIZE) -> Path:
    """An image file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)
    return path


def probabilities(colour: tuple[int, int, int]) -> np.ndarray:
    """What the bundle says of an image of one colour: float64 [3]."""
    powers = np.exp(np.array(colour) / 100)
    return np.asarray(powers / powers.sum())
