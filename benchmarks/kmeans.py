"""Implementations of k-means for the codebook: wall time, quantisation error, reproducibility.

Run it anywhere: ``python benchmarks/kmeans.py``, with ``pip install faiss-cpu`` for the faiss
rows. The descriptors are drawn unless ``--descriptors FILE.npy`` (float32 [N, D]) is given.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from scenetrack.encoders import BagOfWords

Floats = NDArray[np.float32]
Learn = Callable[[Floats, int, int], Floats]  # descriptors, words, iterations -> [K, D]


def drawn_descriptors(count: int, width: int) -> Floats:
    """Draw float32 [count, width]: 300 clusters with a spectrum that falls as after PCA."""
    rng = np.random.default_rng(0)
    spread = 1 / np.sqrt(1 + np.arange(width))
    centres = rng.standard_normal((300, width))
    noise = rng.standard_normal((count, width)) * spread
    return (centres[rng.integers(300, size=count)] + noise).astype(np.float32)


def own_lloyd(descriptors: Floats, words: int, iterations: int) -> Floats:
    """Learn the codebook as scenetrack does: scikit-learn's k-means on one thread."""
    return BagOfWords(words, random_state=0, iterations=iterations).fit(descriptors).codebook_


def faiss_lloyd(descriptors: Floats, words: int, iterations: int) -> Floats:
    """Learn the codebook by faiss.Kmeans on all descriptors."""
    import faiss  # not a dependency

    # By default faiss samples 256 descriptors per word.
    kmeans = faiss.Kmeans(
        descriptors.shape[1], words, niter=iterations, seed=1, max_points_per_centroid=2**31 - 1
    )
    kmeans.train(descriptors)
    return np.array(kmeans.centroids)


def scikit_lloyd(descriptors: Floats, words: int, iterations: int) -> Floats:
    """Learn the codebook by scikit-learn's KMeans from a random start."""
    kmeans = KMeans(words, init="random", n_init=1, max_iter=iterations, tol=0, random_state=0).fit(
        descriptors
    )
    return np.asarray(kmeans.cluster_centers_)


def scikit_plus_plus(descriptors: Floats, words: int, iterations: int) -> Floats:
    """Learn the codebook by scikit-learn's KMeans from a k-means++ start."""
    kmeans = KMeans(words, n_init=1, max_iter=iterations, tol=0, random_state=0).fit(descriptors)
    return np.asarray(kmeans.cluster_centers_)


def scikit_mini_batch(descriptors: Floats, words: int, iterations: int) -> Floats:
    """Learn the codebook by MiniBatchKMeans; an iteration is one pass over all descriptors."""
    kmeans = MiniBatchKMeans(
        words,
        init="random",
        n_init=1,
        max_iter=iterations,
        batch_size=4096,
        max_no_improvement=None,
        random_state=0,
    ).fit(descriptors)
    return np.asarray(kmeans.cluster_centers_)


METHODS: dict[str, Learn] = {
    "scenetrack (scikit-learn on one thread)": own_lloyd,
    "faiss, random start": faiss_lloyd,
    "scikit-learn, random start": scikit_lloyd,
    "scikit-learn, mini-batches of 4,096": scikit_mini_batch,
    "scikit-learn, k-means++ start": scikit_plus_plus,
}


def quantisation_error(descriptors: Floats, codebook: Floats) -> float:
    """Return the mean squared distance of a descriptor to its nearest word."""
    bow = BagOfWords(len(codebook))
    bow.codebook_ = codebook
    residuals = descriptors - codebook[bow.assign(descriptors)]
    return float(np.mean(residuals**2, dtype=float) * descriptors.shape[1])


def row(name: str, learn: Learn, descriptors: Floats, args: argparse.Namespace) -> str:
    """Return the table row of one method: best wall time, error, and whether runs agree."""
    seconds, books = [], []
    runs = (args.threads, args.threads, 1) if args.repeat else (args.threads,)
    for threads in runs:
        with threadpool_limits(threads):
            start = time.perf_counter()
            books.append(learn(descriptors, args.words, args.iterations))
            seconds.append(time.perf_counter() - start)
    again = [str(np.array_equal(books[0], book)).lower() for book in books[1:]] or ["-", "-"]
    error = quantisation_error(descriptors, books[0])
    return f"| {name} | {min(seconds[:2]):.1f} | {error:.4f} | {again[0]} | {again[1]} |"


def main() -> None:
    """Print machine, versions, settings, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptors", type=Path, help="float32 [N, D] .npy file")
    parser.add_argument("--count", type=int, default=200_000, help="descriptors at most")
    parser.add_argument("--width", type=int, default=80, help="dimensions of drawn descriptors")
    parser.add_argument("--words", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--repeat", action="store_true", help="compare with a second run and a single thread"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    if args.descriptors:
        descriptors = np.load(args.descriptors, allow_pickle=False)[: args.count]
    else:
        descriptors = drawn_descriptors(args.count, args.width)
    warnings.simplefilter("ignore")
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "scikit-learn", "faiss-cpu")
        if name != "faiss-cpu" or importlib.util.find_spec("faiss")
    ]
    source = "real" if args.descriptors else "drawn"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {args.threads} threads, Python "
        f"{platform.python_version()}, {', '.join(versions)}: {len(descriptors)} {source} "
        f"descriptors of {descriptors.shape[1]} values, {args.words} words, "
        f"{args.iterations} iterations\n"
    )
    print("| k-means | seconds | mean squared error | same again | same on 1 thread |")
    print("|---|---|---|---|---|")
    for name in args.methods:
        if name.startswith("faiss") and not importlib.util.find_spec("faiss"):
            print(f"| {name} | not installed: pip install faiss-cpu | | | |")
            continue
        print(row(name, METHODS[name], descriptors, args), flush=True)


if __name__ == "__main__":
    main()
