"""Fisher vectors of images against scikit-image's ``fisher_vector`` in a loop.

``python benchmarks/fisher.py [--images N] [--rounds N]`` draws descriptors as dense SIFT has them
after PCA with the position appended, fits a mixture to a sample, and lets both encode the same
images with the same mixture by turns. Both are left to use all processors. The parts that both
have (scikit-image adds weights, and its deviations have the other sign) are compared first.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _machine import RESULTS, machine, speed_table, times_by_turns
from numpy.typing import NDArray
from skimage.feature import fisher_vector
from sklearn.mixture import GaussianMixture

from scenetrack.encoders import FisherVector, SceneEncoder
from scenetrack.graph import GraphBuilder
from scenetrack.machine import available_cpus
from scenetrack.runtime import OnnxModel

Floats = NDArray[np.float32]
DESCRIPTORS, WIDTH, COMPONENTS, SAMPLE = 5500, 66, 128, 256_000
OURS, TWIN, THEIRS = "scenetrack", "its ONNX graph", "scikit-image, one image after the other"


def drawn(count: int, seed: int) -> Floats:
    """float32 [count, WIDTH]: 300 clusters with a spectrum that falls as after PCA."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(WIDTH))
    centres = 2 * np.random.default_rng(0).standard_normal((300, WIDTH)) * spread
    noise = rng.standard_normal((count, WIDTH)) * spread
    return (centres[rng.integers(300, size=count)] + noise).astype(np.float32)


def scikit_mixture(encoder: FisherVector) -> GaussianMixture:
    """The same mixture for scikit-image, in float32, in which it is fastest."""
    mixture = encoder.mixture_
    gmm = GaussianMixture(len(mixture.means), covariance_type="diag")
    gmm.weights_, gmm.covariances_ = mixture.weights, mixture.variances
    gmm.means_ = mixture.means + mixture.centre
    gmm.precisions_cholesky_ = 1 / np.sqrt(mixture.variances)
    return gmm


def in_common(vector: NDArray[Any]) -> NDArray[Any]:
    """The part of scikit-image's improved vector that ours has, as ours has it."""
    means, deviations = np.split(vector[COMPONENTS:], 2)
    part = np.concatenate([means, -deviations])
    return part / np.linalg.norm(part)


def graph_of(scene: SceneEncoder) -> OnnxModel:
    """The twin, for any number of images."""
    builder = GraphBuilder("fisher")
    name = builder.input("descriptors", np.float32, [None, DESCRIPTORS, WIDTH])
    features, _ = scene.to_graph(builder, name)
    builder.output("features", features, np.float32, [None, scene.encoder.width])
    return OnnxModel(builder.build({}).SerializeToString(), device="cpu")


def main() -> None:
    """Measure, compare, and write ``results/fisher.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    where = machine()
    started = time.perf_counter()
    encoder = FisherVector(COMPONENTS).fit(drawn(SAMPLE, seed=1))
    fitted = time.perf_counter() - started
    gmm = scikit_mixture(encoder)
    images = drawn(args.images * DESCRIPTORS, seed=2).reshape(args.images, DESCRIPTORS, WIDTH)
    scene = SceneEncoder(encoder, ("1x1",), np.full((DESCRIPTORS, 2), 0.5, np.float32), None)
    twin = graph_of(scene)
    theirs = np.stack([in_common(fisher_vector(image, gmm, improved=True)) for image in images])
    apart = [
        float(np.linalg.norm(found - theirs, axis=1).max())
        for found in (scene.encode(images), twin.run(descriptors=images)["features"])
    ]
    seconds = times_by_turns(
        {
            OURS: lambda: scene.encode(images),
            TWIN: lambda: twin.run(descriptors=images),
            THEIRS: lambda: [fisher_vector(image, gmm, improved=True) for image in images],
        },
        args.rounds,
    )
    parts = [
        "# Fisher vectors",
        f"{where}.",
        f"{args.images} images of {DESCRIPTORS:,} drawn descriptors of {WIDTH} values, "
        f"{COMPONENTS} components, {available_cpus()} processors, by turns, medians of "
        f"{args.rounds} rounds.",
        speed_table(seconds, args.images, THEIRS),
        f"Distance from scikit-image's unit vectors, at most: scenetrack {apart[0]:.1e}, its graph "
        f"{apart[1]:.1e}. Fitting the mixture to {SAMPLE:,} descriptors took {fitted:.1f} s.",
    ]
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join(parts) + "\n"
    (RESULTS / "fisher.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
