"""Histograms of visual words against scikit-learn's ``KMeans.predict`` in a loop.

``python benchmarks/words.py [--images N] [--rounds N] [--descriptors FILE.npy]`` learns 512 words
from a sample of descriptors, drawn as those of a dense grid are after PCA, or real ones
(float32 [N, D]) from a file. Each way encodes the same images by turns, and all may use
every processor. scenetrack's first way rounds descriptors to bytes, which is part of its time.
The assigned words are compared first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _machine import RESULTS, machine, speed_table, times_by_turns
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from scenetrack.encoders import BagOfWords, ImageEncoder
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.machine import available_cpus

Floats = NDArray[np.float32]
WORDS, SAMPLE = 512, 51_200
# Descriptors of an image, and their values: dense SIFT at four scales as it is, and after PCA;
# patches at a small stride.
SHAPES = ((5500, 128), (5500, 64), (841, 80))
OURS, EXACT, GRAPH, THEIRS = (
    "scenetrack, bytes",
    "scenetrack, float64",
    "bytes in its ONNX graph",
    "scikit-learn, one image after the other",
)


def drawn(count: int, width: int, seed: int) -> Floats:
    """Draw float32 [count, width]: 300 clusters with a spectrum that falls as after PCA."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(width))
    centres = 2 * np.random.default_rng(0).standard_normal((300, width)) * spread
    noise = rng.standard_normal((count, width)) * spread
    return (centres[rng.integers(300, size=count)] + noise).astype(np.float32)


def learnt(rows: Floats, count: int) -> ImageEncoder:
    """Return an encoder fitted to a sample, for images with ``count`` descriptors."""
    positions = np.full((count, 2), 0.5, np.float32)
    return ImageEncoder.learn(
        rows,
        np.full((len(rows), 2), 0.5, np.float32),
        BagOfWords(WORDS, iterations=10),
        levels=("1x1",),
        positions=positions,
        pca=0,
        square_root=False,
        position_weight=0.0,
    )


def scikit_words(encoder: ImageEncoder, rows: Floats) -> KMeans:
    """Return scikit-learn's estimator with the same words."""
    words = encoder.encoder.to_arrays()["codebook"]
    kmeans = KMeans(WORDS, init=words, n_init=1, max_iter=1).fit(rows)
    kmeans.cluster_centers_ = words
    return kmeans


def graph_of(encoder: ImageEncoder, width: int) -> OnnxModel:
    """Return the ONNX graph of the encoder, for any number of images."""
    builder = GraphBuilder("words")
    name = builder.input("descriptors", np.float32, [None, len(encoder.positions), width])
    features, _ = encoder.to_graph(builder, name)
    builder.output("features", features, np.float32, [None, WORDS])
    return OnnxModel(builder.build({}).SerializeToString(), device="cpu")


def compared(encoder: ImageEncoder, kmeans: KMeans, images: Floats) -> str:
    """Compare the words of rounded descriptors with those of scikit-learn."""
    bow = encoder.encoder
    assert isinstance(bow, BagOfWords)
    raw = images.reshape(-1, images.shape[-1])
    rounded = np.clip(np.rint(raw / bow.step_), -128, 127).astype(np.float32) * bow.step_
    words, theirs = bow.assign(raw), kmeans.predict(rounded)
    lengths = [np.linalg.norm(rounded - bow.codebook_[word], axis=1) for word in (words, theirs)]
    farther = np.linalg.norm(raw - bow.codebook_[words], axis=1) ** 2
    nearest = np.linalg.norm(raw - bow.codebook_[kmeans.predict(raw)], axis=1) ** 2
    return (
        f"Of {len(rounded):,} descriptors in bytes {np.mean(words == theirs):.4%} have the word of "
        f"scikit-learn's predict, and {np.mean(lengths[0] == lengths[1]):.4%} one as near. "
        f"Rounding to bytes gives {np.mean(words != kmeans.predict(raw)):.1%} another word than "
        f"before, and mean squared distances that are {farther.mean() / nearest.mean() - 1:.2%} "
        "longer."
    )


def part(sample: Floats, images: Floats, rounds: int) -> list[str]:
    """Return the paragraphs on images of one shape, float32 [N, n, D]."""
    count, size, width = images.shape
    encoder = learnt(sample, size)
    kmeans = scikit_words(encoder, sample)
    graph = graph_of(encoder, width)
    exact = BagOfWords.from_arrays({"codebook": kmeans.cluster_centers_})
    features = graph.run(descriptors=images)["features"]
    np.testing.assert_array_equal(features, encoder.encode(images))
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: encoder.encode(images),
        EXACT: lambda: exact.transform(images),
        GRAPH: lambda: graph.run(descriptors=images),
        THEIRS: lambda: [np.bincount(kmeans.predict(x), minlength=WORDS) / size for x in images],
    }
    seconds = times_by_turns(ways, rounds)
    return [
        f"## {size:,} descriptors of {width} values",
        speed_table(seconds, count, THEIRS),
        compared(encoder, kmeans, images),
    ]


def main() -> None:
    """Measure, compare, and write ``results/words.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--descriptors", type=Path, help="float32 [N, D] .npy, shuffled")
    args = parser.parse_args()
    paragraphs = ["# Visual words", f"{machine()}."]
    paragraphs.append(
        f"{WORDS} words, {args.images} images, {available_cpus()} processors, by turns, medians "
        f"of {args.rounds} rounds."
    )
    for size, width in SHAPES:
        needed = SAMPLE + args.images * size
        rows = drawn(needed, width, seed=1)
        if args.descriptors:
            rows = np.load(args.descriptors, allow_pickle=False)[:needed]
            width = rows.shape[1]
        images = rows[SAMPLE:].reshape(args.images, size, width)
        paragraphs += part(rows[:SAMPLE], images, args.rounds)
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join(paragraphs) + "\n"
    (RESULTS / "words.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
