"""Explicit kernel maps against exact kernels: accuracy at real size, memory and time by images.

``python benchmarks/kernel_maps.py [--quick] [--features FILE.npz]`` takes histograms of real
images from a file with the arrays ``train``, ``train_labels``, ``test`` and ``test_labels``, else
drawn ones. C and gamma are found by cross-validation for each way; every figure is taken in a
process of its own, the ways by turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _machine import in_own_process, machine, peak_rss, table, write_result
from numpy.typing import NDArray

CLASSES, WORDS, TOPICS, PATCHES = 8, 1024, 60, 841
KERNELS = ("linear", "rbf", "chi2", "intersection")
LANDMARKS = (250, 500, 1_000)
COUNTS = (2_000, 4_000, 8_000, 12_000)
REAL_SIZE = (1_881, 807)
EXACT = "exact"

Histograms = tuple[NDArray[np.float32], NDArray[np.int64]]


def drawn(count: int, seed: int) -> Histograms:
    """Draw histograms [count, WORDS] of images whose classes differ in the frequency of topics."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    topics = world.dirichlet(np.full(WORDS, 0.05), TOPICS)
    habits = world.gamma(0.5, size=(CLASSES, TOPICS))
    labels = np.arange(count) % CLASSES
    shares = rng.gamma(0.25 + 0.35 * habits[labels])
    words = (shares / shares.sum(axis=1, keepdims=True)) @ topics
    counts = [rng.multinomial(PATCHES, row / row.sum()) for row in words]
    return (np.stack(counts) / PATCHES).astype(np.float32), labels


def features_of(task: dict[str, Any]) -> tuple[Histograms, Histograms]:
    """Return the histograms of training and test images of a task."""
    if not task["features"]:
        return drawn(task["train"], 1), drawn(task["test"], 2)
    with np.load(task["features"], allow_pickle=False) as arrays:
        train, test = (
            (arrays[name].astype(np.float32), arrays[f"{name}_labels"].astype(np.int64))
            for name in ("train", "test")
        )
    return train, test


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Fit one kernel in one way; return seconds, memory besides the features, and accuracies."""
    from scenetrack import classifiers
    from scenetrack.classifiers import grid_search as search
    from scenetrack.classifiers import kernel_maps as maps

    train, test = features_of(task)
    few = {"C_GRID": (1.0,), "GAMMA_FACTORS": (1.0,)} if task["one_setting"] else {}
    exact = task["landmarks"] == 0
    with (
        patch.object(classifiers, "MAPPED_FROM", len(train[0]) + 1 if exact else 0),
        patch.object(maps, "LANDMARKS", task["landmarks"]),
        patch.multiple(search, **few) if few else patch.object(search, "C_GRID", search.C_GRID),
    ):
        before, started = peak_rss(), time.perf_counter()
        fitted = classifiers.fit_by_cross_validation(
            *train, task["kernel"], preparation="square_root", folds=task["folds"], seed=0
        )
        seconds, peak = time.perf_counter() - started, peak_rss() - before
    return {
        "seconds": seconds,
        "peak": peak,
        "cv": fitted.cv_accuracy,
        "test": float(np.mean(fitted.predict(test[0]) == test[1])),
        "setting": fitted.best_params,
    }


def way(landmarks: int) -> str:
    """Return the name of a way."""
    return f"{landmarks:,} landmarks" if landmarks else EXACT


def accuracies(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every kernel at real size, exact and with fewer landmarks than images."""
    found = []
    for kernel in args.kernels:
        for landmarks in (0, *args.landmarks):
            task = {
                "features": args.features,
                "train": args.size[0],
                "test": args.size[1],
                "kernel": kernel,
                "landmarks": landmarks,
                "folds": 5,
                "one_setting": False,
            }
            found.append({**task, **in_own_process(__file__, task)})
    return found


def growth(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one setting of the rbf kernel for growing numbers of images, both ways by turns."""
    from scenetrack.classifiers.kernel_maps import LANDMARKS as OURS

    found = []
    for count in args.counts:
        task = {"features": "", "train": count, "test": 500, "kernel": "rbf", "folds": 3}
        for landmarks in (0, OURS):
            both = {**task, "landmarks": landmarks, "one_setting": True}
            runs = [in_own_process(__file__, both) for _ in range(args.repeats)]
            seconds = statistics.median(run["seconds"] for run in runs)
            found.append({**both, **runs[0], "seconds": seconds})
    return found


def accuracy_row(row: dict[str, Any], exact: dict[str, Any]) -> dict[str, object]:
    """Return a row of the first table; ``exact`` is the exact result of the same kernel."""
    return {
        "kernel": row["kernel"],
        "way": way(row["landmarks"]),
        "cross-validation": f"{row['cv']:.4f}",
        "test": f"{row['test']:.4f}",
        "points to exact, cv / test": (
            f"{100 * (row['cv'] - exact['cv']):+.1f} / {100 * (row['test'] - exact['test']):+.1f}"
        ),
        "C": f"{row['setting']['C']:.3g}",
        "seconds": f"{row['seconds']:.1f}",
    }


def growth_row(row: dict[str, Any]) -> dict[str, object]:
    """Return a row of the second table."""
    return {
        "images": f"{row['train']:,}",
        "way": way(row["landmarks"]),
        "peak MB besides the features": f"{row['peak']:.0f}",
        "seconds": f"{row['seconds']:.1f}",
        "test": f"{row['test']:.4f}",
    }


def plot(rows: list[dict[str, Any]], grown: list[dict[str, Any]]) -> Any:
    """Plot accuracy by landmarks, and memory by images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, kernel in enumerate(dict.fromkeys(row["kernel"] for row in rows)):
        own = [row for row in rows if row["kernel"] == kernel]
        colour = f"C{number}"
        mapped = [row for row in own if row["landmarks"]]
        left.plot([r["landmarks"] for r in mapped], [r["cv"] for r in mapped], "o-", color=colour)
        left.axhline(own[0]["cv"], color=colour, linestyle="--", label=f"{kernel}, exact")
    left.set_xlabel("landmarks")
    left.set_ylabel("cross-validated accuracy")
    left.legend()
    for name in dict.fromkeys(way(row["landmarks"]) for row in grown):
        own = [row for row in grown if way(row["landmarks"]) == name]
        right.plot([r["train"] for r in own], [r["peak"] for r in own], "o-", label=name)
    right.set_xlabel("training images")
    right.set_ylabel("peak MB besides the features")
    right.legend()
    return figure


def main() -> None:
    """Measure, write ``results/kernel_maps.md`` and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--features", default="", help="histograms of real images, .npz")
    parser.add_argument("--quick", action="store_true", help="two kernels, few images")
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(json.loads(args.task))))
        return
    args.kernels = ("linear", "rbf") if args.quick else KERNELS
    args.landmarks = (50, 100) if args.quick else LANDMARKS
    args.size = (240, 120) if args.quick else REAL_SIZE
    args.counts = (250, 500) if args.quick else COUNTS
    args.repeats = 1 if args.quick else 3
    where = machine()
    rows = accuracies(args)
    grown = growth(args)
    exact = {row["kernel"]: row for row in rows if not row["landmarks"]}
    data = f"the histograms of {Path(args.features).name}" if args.features else "drawn histograms"
    write_result(
        "kernel_maps" + "-quick" * args.quick,
        [
            "# Explicit kernel maps",
            f"{where}. C and gamma by 5-fold cross-validation on {data}.",
            table([accuracy_row(row, exact[row["kernel"]]) for row in rows]),
            "One C and gamma of the rbf kernel with 3 folds, more and more drawn images of "
            f"{WORDS:,} words; medians of {args.repeats}.",
            table([growth_row(row) for row in grown]),
        ],
        plot(rows, grown),
    )


if __name__ == "__main__":
    main()
