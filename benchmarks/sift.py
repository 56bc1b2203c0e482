"""Dense SIFT against OpenCV's ``SIFT.compute`` at the same points, by turns on the same images.

``python benchmarks/sift.py [--images N] [--rounds N]``. OpenCV gets the points of the grid as key
points with a size and an angle, so that it neither detects nor rotates them; making them is not
timed. Both take the same images with the same number of threads. OpenCV does not support colour: in
opponent colours it describes three planes, one after the other, rounded to bytes. The grey images
are bytes for both.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from _machine import RESULTS, machine, real_images, table, times_by_turns
from numpy.typing import NDArray

from scenetrack.descriptors.sift import ORIENTATIONS, SiftGrid, sift_graph
from scenetrack.graphs.runtime import OnnxModel

SIZE, SMOOTHING = 256, 1.52
GRIDS = {"step 6, bins of 4, 6, 8 and 10 px": (6, (4, 6, 8, 10)), "step 4, bins of 8 px": (4, (8,))}
BATCHES = (1, 2, 4)
THEIRS = "OpenCV"
Bytes = NDArray[np.uint8]


def key_points(grid: SiftGrid) -> list[cv2.KeyPoint]:
    """Return the grid's points in order; a bin of OpenCV is 1.5 times the size of a key point."""
    return [
        cv2.KeyPoint(float(x), float(y), bin_size / 1.5, 0.0)
        for bin_size in grid.bin_sizes
        for y in grid.centres(bin_size)
        for x in grid.centres(bin_size)
    ]


def grey(images: Bytes) -> Bytes:
    """Return grey images as uint8 [N, S, S, 3] with three equal channels."""
    planes = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    return np.repeat(np.stack(planes)[..., None], 3, axis=-1)


def planes_of(grid: SiftGrid, images: Bytes) -> Bytes:
    """Return planes for OpenCV, uint8 [N, channels, S, S]; opponent colours span 0 to 255."""
    if len(grid.mixing) == 1:
        return np.ascontiguousarray(images[..., :1].transpose(0, 3, 1, 2))
    planes = (images @ grid.mixing.T).transpose(0, 3, 1, 2)
    low = planes.min(axis=(2, 3), keepdims=True)
    span = np.maximum(planes.max(axis=(2, 3), keepdims=True) - low, 1)
    return np.asarray(np.rint(255 * (planes - low) / span), np.uint8)


def in_our_order(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return OpenCV's descriptors [n, 128] in our order of rows, columns and directions."""
    bins = rows.reshape(-1, 4, 4, ORIENTATIONS)[..., ::-1]
    turned = np.roll(bins, 1, axis=-1).transpose(0, 1, 3, 2)
    return turned.reshape(len(rows), -1).astype(float)


def agreement(ours: Bytes, theirs: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and first percentile of the cosines, before the root, of non-zero rows."""
    squared = ours.astype(float) ** 2
    norms = np.linalg.norm(squared, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = ((squared * theirs).sum(1) / np.where(norms, norms, np.nan))[norms > 0]
    return float(cosines.mean()), float(np.quantile(cosines, 0.01))


def row(threads: int, seconds: Mapping[str, float], images: int) -> dict[str, object]:
    """Return milliseconds per image, and our speed relative to OpenCV: at batch 1, and the best."""
    each = {name: 1000 * taken / images for name, taken in seconds.items()}
    theirs = each.pop(THEIRS)
    best = min(each, key=lambda name: each[name])
    return {
        "threads": threads,
        "OpenCV, ms": f"{theirs:.1f}",
        **{f"{name}, ms": f"{taken:.2f}" for name, taken in each.items()},
        "times as fast, batch 1": f"{theirs / each[_name(1)]:.1f}",
        "times as fast, best": f"{theirs / each[best]:.1f}",
    }


def compare(grid: SiftGrid, images: Bytes, rounds: int) -> tuple[list[dict[str, object]], str]:
    """Return a row for one thread and one for two, and the agreement of the descriptors."""
    graph, points, planes = sift_graph(grid, {}), key_points(grid), planes_of(grid, images)
    opencv_sift = cv2.SIFT_create()
    rows = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        model = OnnxModel(graph.SerializeToString(), device="cpu", threads=threads)
        ways: dict[str, Callable[[], Any]] = {
            THEIRS: lambda: [
                opencv_sift.compute(plane, points) for plane in planes.reshape(-1, SIZE, SIZE)
            ]
        }
        for batch in BATCHES:
            ways[_name(batch)] = lambda model=model, batch=batch: model.predict(images, batch)
        rows.append(row(threads, times_by_turns(ways, rounds), len(images)))
    ours = model.predict(images, 1)["descriptors"].reshape(len(images), len(points), -1, 128)
    pairs = [
        agreement(ours[image, :, plane], in_our_order(opencv_sift.compute(pixels, points)[1]))
        for image, channels in enumerate(planes)
        for plane, pixels in enumerate(channels)
    ]
    mean, low = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    return (
        rows,
        f"Cosine with OpenCV's descriptors: {mean:.4f} on average, first percentile {low:.4f}.",
    )


def _name(batch: int) -> str:
    return f"scenetrack, batch {batch}"


def main() -> None:
    """Measure, compare, and write ``results/sift.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    parts = ["# Dense SIFT", f"{machine()}, OpenCV {cv2.__version__}."]
    images, data = real_images(args.images, SIZE)
    parts.append(
        f"{args.images} images of {data}, {SIZE} px, by turns, medians of {args.rounds} rounds, "
        "an image."
    )
    for colour in ("grey", "opponent"):
        for name, (step, bins) in GRIDS.items():
            grid = SiftGrid(SIZE, step, bins, colour, SMOOTHING)
            shown = grey(images) if colour == "grey" else images
            rows, agreed = compare(grid, shown, args.rounds)
            points = len(grid.positions)
            parts += [f"## {name}, {colour}: {points:,} points", table(rows), agreed]
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join(parts) + "\n"
    (RESULTS / "sift.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
