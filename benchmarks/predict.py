"""Speed of ``predict`` from image files to labels, against that of its parts alone.

``python benchmarks/predict.py [--quick] [--run RUN]`` takes the test images of the real split
where ``SCENETRACK_DATA`` names it, else drawn ones, and a run of ``patch_bow``, which it trains
in a temporary folder where none is named. Every figure is taken in a process of its own, the
parts by turns; once for the way end to end, whose bundle is descriptors and an average, and once
for the method that the run chose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
from _finished import add_options, data_name, finished_run
from _machine import in_own_process, machine, peak_rss, table, write_result

DECODING, DESCRIPTORS, BUNDLE, WHOLE, COMMAND = (
    "decoding alone",
    "descriptors alone",
    "bundle alone, images decoded",
    "whole predict",
    "whole command, start of Python included",
)
END_TO_END = "end to end"
PARTS = (DECODING, DESCRIPTORS, BUNDLE, WHOLE, COMMAND)


def prepare(folder: Path, run_id: str, method: str, quick: bool) -> tuple[str, int]:
    """Write bundle, network and the list of files into ``folder``.

    Returns:
        The name of the method, and the number of files.
    """
    from scenetrack.data.catalog import load_dataset
    from scenetrack.workflow.bundling import bundle_of
    from scenetrack.workflow.load_method import find_method, open_pipeline

    found = find_method(run_id, method)
    bundle = bundle_of(found.run.id if found.run else run_id)
    (folder / "scene.onnx").write_bytes(bundle.read_bytes())
    pipeline = open_pipeline(found, None, "cpu")
    (folder / "network.onnx").write_bytes(pipeline.network.SerializeToString())
    paths = load_dataset("demo" if quick else data_name(), seed=0).test.paths
    chosen = [str(path) for path in paths][: 64 if quick else None]
    (folder / "paths.json").write_text(json.dumps(chosen), encoding="utf-8")
    return found.name, len(chosen)


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds that a part takes for all images, and its peak memory in MB."""
    folder = Path(task["folder"])
    paths = json.loads((folder / "paths.json").read_text(encoding="utf-8"))
    part = task["part"]
    if part == COMMAND:
        return {"seconds": command(folder, paths), "rss": None}
    if part == WHOLE:
        return {"seconds": whole(folder, paths), "rss": peak_rss()}
    seconds = decoding(folder, paths) if part == DECODING else inference(folder, paths, part)
    return {"seconds": seconds, "rss": peak_rss()}


def whole(folder: Path, paths: list[str]) -> float:
    """Time ``predict`` from image files to a file of rows, without imports; return seconds."""
    from scenetrack.config import PredictConfig
    from scenetrack.stages.predict import predict

    output = folder / "labels.csv"
    bundle = str(folder / "scene.onnx")
    # Imports and disk reads of the first call are not timed.
    predict(PredictConfig(model=bundle, images=(paths[0],), output=str(output)))
    settings = PredictConfig(model=bundle, images=tuple(paths), output=str(folder / "all.csv"))
    started = time.perf_counter()
    predict(settings)
    return time.perf_counter() - started


def command(folder: Path, paths: list[str]) -> float:
    """Time the command ``scenetrack predict``; return seconds."""
    words = ["predict", str(folder / "scene.onnx"), *paths, "-o", str(folder / "command.csv")]
    started = time.perf_counter()
    run([sys.executable, "-m", "scenetrack", *words], check=True, capture_output=True)
    return time.perf_counter() - started


def decoding(folder: Path, paths: list[str]) -> float:
    """Time decoding and resizing in as many threads as ``predict`` uses; return seconds."""
    from scenetrack.data.prefetch import read_ahead
    from scenetrack.graphs.runtime import OnnxModel
    from scenetrack.system.machine import available_cpus

    size = int(OnnxModel(folder / "scene.onnx", device="cpu").metadata["image_size"])
    started = time.perf_counter()
    images = read_ahead(paths, size, threads=available_cpus(), ahead=64, memory=2**27)
    if not all(isinstance(image, np.ndarray) for _, image in images):
        raise SystemExit("an image could not be read")
    return time.perf_counter() - started


def inference(folder: Path, paths: list[str], part: str) -> float:
    """Time a graph on all images, which are decoded before; return seconds."""
    from scenetrack.data.images import load_images
    from scenetrack.graphs.runtime import OnnxModel

    bundle = OnnxModel(folder / "scene.onnx", device="cpu")
    size = int(bundle.metadata["image_size"])
    images = np.asarray(load_images([Path(path) for path in paths], size))
    model = bundle if part == BUNDLE else OnnxModel(folder / "network.onnx", device="cpu")
    count = bundle.batch_size(images.shape[1:])
    model.run(**{next(iter(model.inputs)): images[:count]})
    started = time.perf_counter()
    for _ in model.stream(images[start : start + count] for start in range(0, len(images), count)):
        pass
    return time.perf_counter() - started


def measure(folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Measure the median seconds of each part, and its peak memory."""
    taken: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        for part, results in taken.items():
            for name in ("labels.csv", "all.csv", "command.csv"):
                (folder / name).unlink(missing_ok=True)
            results.append(in_own_process(__file__, {"part": part, "folder": str(folder)}))
            print(f"{part}: {results[-1]['seconds']:.2f} s")
    return {
        part: {
            "seconds": statistics.median(result["seconds"] for result in results),
            "rss": max((result["rss"] or 0.0) for result in results),
        }
        for part, results in taken.items()
    }


def summary(taken: dict[str, dict[str, Any]]) -> str:
    """Compare the time of the whole with that of the slower part, and with the sum of both."""
    seconds = {part: result["seconds"] for part, result in taken.items()}
    slower = max(seconds[DECODING], seconds[DESCRIPTORS])
    both = seconds[DECODING] + seconds[BUNDLE]
    return (
        f"The whole takes {seconds[WHOLE] / slower:.2f} times as long as the slower of decoding "
        f"and descriptors alone, and {seconds[WHOLE] / both:.2f} times as long as decoding and "
        "the bundle one after the other (on a CPU they share the processors; `predict` runs "
        "batches side by side in one thread each, the bundle alone one batch in all threads)."
    )


def plot(taken: dict[str, dict[str, dict[str, Any]]], count: int) -> Any:
    """Plot images per second of every part, one panel for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(taken)), layout="constrained")
    panels = figure.subplots(len(taken), squeeze=False)[:, 0]
    for axes, (method, results) in zip(panels, taken.items(), strict=True):
        names = list(results)[::-1]
        bars = axes.barh(names, [count / results[name]["seconds"] for name in names])
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.margins(x=0.12)
        axes.set_xlabel("images a second")
        axes.set_title(method)
    return figure


def main() -> None:
    """Measure, write ``results/predict.md`` and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(json.loads(args.task))))
        return
    where = machine()
    rounds = 1 if args.quick else 5
    taken = {}
    with finished_run(args) as (run_id, folder):
        for chosen in (END_TO_END, ""):
            method, count = prepare(folder, run_id, chosen, args.quick)
            taken[method] = measure(folder, rounds)
    data = "demo" if args.quick else data_name()
    parts: list[str] = []
    for method, results in taken.items():
        parts += [f"## {method[0].upper()}{method[1:]}", summary(results), rows(results, count)]
    write_result(
        "predict" + "-quick" * args.quick,
        ["# From image files to labels", f"{where}. {count} test images of {data}.", *parts],
        plot(taken, count),
    )


def rows(taken: dict[str, dict[str, Any]], count: int) -> str:
    """Return the table of a method."""
    return table(
        [
            {
                "part": part,
                "images/s": f"{count / result['seconds']:.0f}",
                "ms an image": f"{1000 * result['seconds'] / count:.2f}",
                "peak MB": f"{result['rss']:.0f}" if result["rss"] else "",
            }
            for part, result in taken.items()
        ]
    )


if __name__ == "__main__":
    main()
