"""Latency of one image: the bundle (one ONNX file) against the same method in Python.

``python benchmarks/latency.py [--quick] [--run RUN]`` takes every method of a run of
``patch_bow``, which it trains in a temporary folder where none is named, and a test image. The
two sides take turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _finished import add_options, data_name, finished_run
from _machine import in_own_process, machine, table, write_result

SIDES = ("bundle", "bundle, resizing", "Python")


def prepare(folder: Path, run_id: str, quick: bool) -> list[str]:
    """Write a bundle of every method and an image into ``folder``; return the methods' names."""
    import onnx

    from scenetrack.data.catalog import load_dataset
    from scenetrack.data.decoding import decode_image
    from scenetrack.data.images import load_images
    from scenetrack.delivery.bundle import build_bundle
    from scenetrack.tracking import children
    from scenetrack.workflow.load_method import find_method, open_pipeline

    names = [child.name for child in children(run_id)]
    path = load_dataset("demo" if quick else data_name(), seed=0).test.paths[0]
    for index, name in enumerate(names):
        pipeline = open_pipeline(find_method(run_id, name), None, "cpu")
        onnx.save(build_bundle(pipeline, {}), folder / f"{index}.onnx")
        np.save(folder / "small.npy", load_images([path], pipeline.image_size))
    np.save(folder / "large.npy", decode_image(path)[None])
    return names


def run_task(task: dict[str, Any]) -> dict[str, list[float]]:
    """Return the seconds of each call."""
    folder, side = Path(task["folder"]), task["side"]
    name = "large.npy" if side == "bundle, resizing" else "small.npy"
    image = np.load(folder / name, allow_pickle=False)
    call = in_python(task) if side == "Python" else in_bundle(folder, task["index"])
    for _ in range(10):
        call(image)
    seconds = []
    for _ in range(task["calls"]):
        started = time.perf_counter()
        call(image)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


def in_bundle(folder: Path, index: int) -> Callable[[np.ndarray], object]:
    """Return a function from images uint8 [1, H, W, 3] to probabilities, by the bundle."""
    from scenetrack.graphs.runtime import OnnxModel

    model = OnnxModel(folder / f"{index}.onnx", device="cpu")
    return lambda image: model.run(images=image)


def in_python(task: dict[str, Any]) -> Callable[[np.ndarray], object]:
    """Return a function from images uint8 [1, S, S, 3] to probabilities, by the pipeline."""
    from scenetrack.workflow.load_method import find_method, open_pipeline

    pipeline = open_pipeline(find_method(task["run"], task["method"]), None, "cpu")
    return lambda image: pipeline.probabilities(pipeline.scores(image))


def measure(
    folder: Path, run_id: str, names: list[str], calls: int, rounds: int
) -> list[dict[str, Any]]:
    """Measure the milliseconds of all calls by method and side."""
    rows = []
    for index, name in enumerate(names):
        taken: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side, milliseconds in taken.items():
                task = {
                    "side": side,
                    "folder": str(folder),
                    "index": index,
                    "run": run_id,
                    "method": name,
                    "calls": calls,
                }
                seconds = in_own_process(__file__, task)["seconds"]
                milliseconds += [1000 * value for value in seconds]
        rows += [{"method": name, "side": side, "ms": ms} for side, ms in taken.items()]
        print(
            f"{name}: " + ", ".join(f"{side} {np.median(ms):.2f} ms" for side, ms in taken.items())
        )
    return rows


def plot(rows: list[dict[str, Any]]) -> Any:
    """Plot medians, with a line up to the 99th percentile."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.35 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    shown = rows[::-1]
    medians = np.array([np.median(row["ms"]) for row in shown])
    late = np.array([np.percentile(row["ms"], 99) for row in shown]) - medians
    axes.barh(
        [f"{row['method']}: {row['side']}" for row in shown],
        medians,
        xerr=np.stack([np.zeros_like(late), late]),
        color=[f"C{SIDES.index(row['side'])}" for row in shown],
    )
    axes.set_xlabel("milliseconds for one image; the line ends at the 99th percentile")
    return figure


def main() -> None:
    """Measure, write ``results/latency.md`` and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(json.loads(args.task))))
        return
    where = machine()
    calls, rounds = (20, 1) if args.quick else (100, 3)
    with finished_run(args) as (run_id, folder):
        names = prepare(folder, run_id, args.quick)
        rows = measure(folder, run_id, names, calls, rounds)
    shown = [
        {
            "method": row["method"],
            "side": row["side"],
            "median ms": f"{np.median(row['ms']):.2f}",
            "99th percentile ms": f"{np.percentile(row['ms'], 99):.2f}",
        }
        for row in rows
    ]
    write_result(
        "latency" + "-quick" * args.quick,
        [
            "# One image through a bundle",
            f"{where}. {calls * rounds} calls each, in {rounds} rounds.",
            "`resizing` takes the image as its file holds it, the others one of the right size.",
            table(shown),
        ],
        plot(rows),
    )


if __name__ == "__main__":
    main()
