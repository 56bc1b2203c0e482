"""Fisher vectors of images against scikit-image's ``fisher_vector`` in a loop.

``python benchmarks/fisher.py [--images N] [--rounds N] [--descriptors FILE.npy]`` fits a mixture to
a sample of descriptors, drawn as dense SIFT has them after PCA with the position appended, or real
ones (float32 [N, D]) from a file, and times both on the same images with the same mixture by
turns. All of them may use every processor. scikit-image gets the mixture in float32 and in
float64, and the faster of the two counts: products with denormal posteriors in float32 are slow.
The common parts (scikit-image adds weights, and the sign of its deviations is opposite) are
compared first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _machine import RESULTS, machine, speed_table, times_by_turns
from numpy.typing import NDArray
from skimage.feature import fisher_vector
from sklearn.mixture import GaussianMixture

from scenetrack.encoders import FisherVector, ImageEncoder
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.machine import available_cpus

Floats = NDArray[np.float32]
DTYPES = ("float32", "float64")
DESCRIPTORS, WIDTH, COMPONENTS, SAMPLE = 5500, 66, 128, 256_000
OURS, GRAPH, THEIRS = "scenetrack", "its ONNX graph", "scikit-image, image by image, mixture in {}"


def drawn(count: int, seed: int) -> Floats:
    """float32 [count, WIDTH]: 300 clusters with a spectrum that falls as after PCA."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(WIDTH))
    centres = 2 * np.random.default_rng(0).standard_normal((300, WIDTH)) * spread
    noise = rng.standard_normal((count, WIDTH)) * spread
    return (centres[rng.integers(300, size=count)] + noise).astype(np.float32)


def scikit_mixture(encoder: FisherVector, dtype: str) -> GaussianMixture:
    """Return the same mixture for scikit-image."""
    mixture = encoder.mixture_
    gmm = GaussianMixture(len(mixture.means), covariance_type="diag")
    gmm.weights_ = mixture.weights.astype(dtype)
    gmm.means_ = (mixture.means + mixture.centre).astype(dtype)
    gmm.covariances_ = mixture.variances.astype(dtype)
    gmm.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    return gmm


def in_common(vector: NDArray[Any]) -> NDArray[Any]:
    """Return the part of scikit-image's improved vector that ours has too, in our convention."""
    means, deviations = np.split(vector[COMPONENTS:], 2)
    part = np.concatenate([means, -deviations])
    return part / np.linalg.norm(part)


def graph_of(image_encoder: ImageEncoder) -> OnnxModel:
    """Return the ONNX graph of the encoder, for any number of images."""
    builder = GraphBuilder("fisher")
    shape = [None, DESCRIPTORS, image_encoder.encoder.mixture_.centre.size]
    name = builder.input("descriptors", np.float32, shape)
    features, _ = image_encoder.to_graph(builder, name)
    builder.output("features", features, np.float32, [None, image_encoder.encoder.width])
    return OnnxModel(builder.build({}).SerializeToString(), device="cpu")


def part(sample: Floats, images: Floats, rounds: int) -> list[str]:
    """Return the paragraphs on images float32 [N, n, D]."""
    started = time.perf_counter()
    encoder = FisherVector(COMPONENTS).fit(sample)
    fitted = time.perf_counter() - started
    image_encoder = ImageEncoder(encoder, ("1x1",), np.full((DESCRIPTORS, 2), 0.5, np.float32))
    graph = graph_of(image_encoder)
    mixtures = {THEIRS.format(kind): scikit_mixture(encoder, kind) for kind in DTYPES}

    def scikit(name: str) -> list[NDArray[Any]]:
        return [fisher_vector(image, mixtures[name], improved=True) for image in images]

    *_, exact = mixtures
    theirs = np.stack([in_common(vector) for vector in scikit(exact)])
    apart = [
        float(np.linalg.norm(found - theirs, axis=1).max())
        for found in (image_encoder.encode(images), graph.run(descriptors=images)["features"])
    ]
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: image_encoder.encode(images),
        GRAPH: lambda: graph.run(descriptors=images),
    }
    ways |= {name: partial(scikit, name) for name in mixtures}
    seconds = times_by_turns(ways, rounds)
    return [
        speed_table(seconds, len(images), min(mixtures, key=seconds.__getitem__)),
        f"Distance from scikit-image's unit vectors, at most: scenetrack {apart[0]:.1e}, its graph "
        f"{apart[1]:.1e}. Fitting the mixture to {len(sample):,} descriptors took {fitted:.1f} s.",
    ]


def main() -> None:
    """Measure, compare, and write ``results/fisher.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--descriptors", type=Path, help="float32 [N, D] .npy, shuffled")
    args = parser.parse_args()
    where, needed = machine(), SAMPLE + args.images * DESCRIPTORS
    rows, source = drawn(needed, seed=1), "drawn"
    if args.descriptors:
        rows, source = np.load(args.descriptors, allow_pickle=False)[:needed], "real"
    images = rows[-args.images * DESCRIPTORS :].reshape(args.images, DESCRIPTORS, -1)
    paragraphs = [
        "# Fisher vectors",
        f"{where}.",
        f"{args.images} images of {DESCRIPTORS:,} {source} descriptors of {images.shape[2]} "
        f"values, {COMPONENTS} components, {available_cpus()} processors, by turns, medians of "
        f"{args.rounds} rounds.",
        *part(rows[: -args.images * DESCRIPTORS], images, args.rounds),
    ]
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join(paragraphs) + "\n"
    (RESULTS / "fisher.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
