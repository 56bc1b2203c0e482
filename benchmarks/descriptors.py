"""Descriptors of all patches of an image: images and patches per second in every form.

``python benchmarks/descriptors.py [--quick] [--device gpu]`` takes real photographs if
``SCENETRACK_DATA`` names the MIT 8-scene split, else drawn ones. The network is Dense 1024-512 on
64 px patches of 256 px images, with random weights, because speed does not depend on them. Each
row runs in a process of its own, and the machine's matrix-product rate is measured between them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _machine import (
    gemm_rates,
    gpu_rates,
    in_own_process,
    machine,
    peak_rss,
    real_images,
    seconds_each,
    table,
    write_result,
)

PATCH, SIZE = 64, 256
WIDTHS = (1024, 512)
STRIDES = (64, 32, 16, 8)
FORMS = ("patches", "conv", "space_to_depth")
PRECISIONS = ("fp32", "fp16", "int8")
GROUP = 16  # images whose patches go through Keras or ONNX Runtime together
COURSE, KERAS, BATCHED = (
    "Keras predict, image by image (the course's way)",
    "Keras predict, in batches",
    "ONNX Runtime, batched patches cut in NumPy",
)
COMPARED = 8  # images whose descriptors are compared with those of Keras


def flops_per_patch() -> int:
    """Return the number of multiplications and additions of the network on one patch."""
    widths = (3 * PATCH**2, *WIDTHS)
    return 2 * sum(left * right for left, right in itertools.pairwise(widths))


def build(folder: Path, strides: tuple[int, ...], images: np.ndarray) -> None:
    """Write images, the Keras network and all its graphs into ``folder``."""
    import keras

    from scenetrack.export.dense import build_dense
    from scenetrack.export.precision import with_precision
    from scenetrack.export.truncate import export_truncated

    keras.utils.set_random_seed(0)
    source = keras.Input((PATCH, PATCH, 3), dtype="uint8", name="images")
    values = keras.layers.Rescaling(1 / 64, offset=-127.5 / 64)(source)
    values = keras.layers.Flatten()(values)
    for index, width in enumerate(WIDTHS, start=1):
        values = keras.layers.Dense(width, activation="relu", name=f"hidden_{index}")(values)
    network = keras.Model(source, values)
    network.save(folder / "network.keras")
    np.save(folder / "images.npy", images)
    export_truncated(
        network,
        {"descriptors": f"hidden_{len(WIDTHS)}"},
        folder / "patches.onnx",
        metadata={},
        real_images=None,
    )
    outputs = {"descriptors": network.outputs[0]}
    for stride, form in itertools.product(strides, FORMS):
        graph = build_dense(network, outputs, stride, form, {}, image_size=SIZE)
        for precision in PRECISIONS:
            path = folder / f"{stride}-{form}-{precision}.onnx"
            path.write_bytes(with_precision(graph, precision).SerializeToString())


def groups(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield ``size`` images at a time, endlessly."""
    start = 0
    while True:
        yield images.take(range(start, start + size), axis=0, mode="wrap")
        start += size


def keras_steps(task: dict[str, Any], images: np.ndarray) -> tuple[int, Iterator[np.ndarray]]:
    """Return images per step, and steps that yield float32 [n, patches, D] computed by Keras."""
    import keras

    from scenetrack.data.patches import PatchGrid

    network = keras.models.load_model(Path(task["folder"]) / "network.keras")
    grid = PatchGrid(SIZE, PATCH, task["stride"])
    count = 1 if task["row"] == COURSE else GROUP
    # The course's code keeps the default batch size of Keras, 32.
    batch_size = None if task["row"] == COURSE else 1024

    def steps() -> Iterator[np.ndarray]:
        for group in groups(images, count):
            patches = grid.extract(group).reshape(-1, PATCH, PATCH, 3)
            values = network.predict(patches, batch_size=batch_size, verbose=0)
            yield values.reshape(len(group), grid.count, -1)

    return count, steps()


def onnx_steps(task: dict[str, Any], images: np.ndarray) -> tuple[int, Iterator[np.ndarray]]:
    """Return images per step, and steps that yield float32 [n, patches, D] by ONNX Runtime."""
    from scenetrack.data.patches import PatchGrid
    from scenetrack.graphs.runtime import OnnxModel

    model = OnnxModel(Path(task["folder"]) / task["file"], device=task["device"])
    grid = PatchGrid(SIZE, PATCH, task["stride"])
    if task["row"] != BATCHED:
        count = model.batch_size(images.shape[1:])
        results = model.stream(groups(images, count))
        return count, (r["descriptors"].reshape(count, grid.count, -1) for r in results)
    # As many images as the dense forms would take: patches at a small stride are large.
    count = max(1, min(GROUP, 1000 // grid.count))
    cut = (grid.extract(group).reshape(-1, PATCH, PATCH, 3) for group in groups(images, count))
    return count, (model.run(images=p)["descriptors"].reshape(count, grid.count, -1) for p in cut)


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Measure one row in this process, or the rates of matrix products."""
    if task["row"] == "rates":
        gpu = task["device"] != "cpu"
        return gpu_rates(task["budget"]) if gpu else gemm_rates(task["budget"])
    folder = Path(task["folder"])
    images = np.load(folder / "images.npy", allow_pickle=False)
    start = keras_steps if task["row"] in (COURSE, KERAS) else onnx_steps
    count, steps = start(task, images)
    few = seconds_each(steps, 0.0, fewest=2)
    early = peak_rss()
    seconds = seconds_each(steps, task["budget"], warm=0)
    late = peak_rss()
    _, again = start(task, images[:COMPARED])
    np.save(folder / "values.npy", np.concatenate(take(again, COMPARED))[:COMPARED])
    return {
        "batch": count,
        "images_per_s": count / statistics.median(seconds),
        "images": [count * (1 + len(few)), count * (1 + len(few) + len(seconds))],
        "rss": [early, late],
    }


def take(steps: Iterator[np.ndarray], images: int) -> list[np.ndarray]:
    """Return the results of steps until they hold ``images`` images."""
    results: list[np.ndarray] = []
    while sum(map(len, results)) < images:
        results.append(next(steps))
    return results


def cosine(values: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return the least and the mean cosine of descriptors [..., D] with their reference."""
    left, right = (
        side.reshape(-1, side.shape[-1]).astype(np.float64) for side in (values, reference)
    )
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1) / lengths
    return float(cosines.min()), float(cosines.mean())


def tasks_of(stride: int) -> list[dict[str, Any]]:
    """Return the rows of one stride, and the rate of matrix products that each is compared with."""
    rows = [
        {"row": COURSE, "rate": "tf32"},
        {"row": KERAS, "rate": "tf32"},
        {"row": BATCHED, "file": "patches.onnx", "rate": "fp32"},
    ]
    rows += [
        {
            "row": f"dense, {form}, {precision}",
            "file": f"{stride}-{form}-{precision}.onnx",
            "rate": "fp16" if precision == "fp16" else "fp32",
        }
        for precision, form in itertools.product(PRECISIONS, FORMS)
    ]
    return [{**row, "stride": stride} for row in rows]


def measure(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return all rows, and the rates measured before, between and after them."""
    common = {"folder": str(folder), "device": args.device, "budget": args.budget}
    rates: list[dict[str, float]] = []
    rows = []
    for stride in args.strides:
        reference = None
        for index, task in enumerate(tasks_of(stride)):
            if index % 4 == 0:
                rates.append(in_own_process(__file__, {**common, "row": "rates", "budget": 0.5}))
            result = in_own_process(__file__, {**common, **task})
            values = np.load(folder / "values.npy", allow_pickle=False)
            reference = values if reference is None else reference
            rows.append({**task, **result, "cosine": cosine(values, reference)})
            print(f"stride {stride}: {task['row']}: {result['images_per_s']:.2f} images/s")
    rates.append(in_own_process(__file__, {**common, "row": "rates", "budget": 0.5}))
    return rows, rates


def peaks(rates: list[dict[str, float]]) -> dict[str, float]:
    """Return the peak rate by precision: medians over the run; on a CPU of the faster library."""
    medians = {way: statistics.median(rate[way] for rate in rates) for way in rates[0]}
    if "fp16" in medians:
        return medians
    return dict.fromkeys(("fp32", "tf32", "fp16"), max(medians.values()))


def shown(row: dict[str, Any], peak: dict[str, float]) -> dict[str, object]:
    """Return a row as the table shows it."""
    patches = ((SIZE - PATCH) // row["stride"] + 1) ** 2
    rate = row["images_per_s"] * patches
    least, mean = row["cosine"]
    return {
        "stride": row["stride"],
        "way": row["row"],
        "images a batch": row["batch"],
        "images/s": f"{row['images_per_s']:.1f}",
        "patches/s": f"{rate:.0f}",
        "share of peak": f"{rate * flops_per_patch() / peak[row['rate']]:.2f}",
        "cosine, least": f"{least:.6f}",
        "cosine, mean": f"{mean:.6f}",
        "peak MB after images": " / ".join(
            f"{rss:.0f} ({images})" for rss, images in zip(row["rss"], row["images"], strict=True)
        ),
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the ratios of the project's speed targets, by stride."""
    lines = []
    for stride in dict.fromkeys(row["stride"] for row in rows):
        speed = {row["row"]: row["images_per_s"] for row in rows if row["stride"] == stride}
        best = {
            kind: max(value for name, value in speed.items() if name.endswith(kind))
            for kind in PRECISIONS
        }
        lines.append(
            f"- stride {stride}: the best dense form in fp32 is "
            f"{best['fp32'] / speed[COURSE]:.1f} times the course's way and "
            f"{best['fp32'] / speed[KERAS]:.2f} times Keras in batches; fp16 is "
            f"{best['fp16'] / best['fp32']:.2f} and int8 {best['int8'] / best['fp32']:.2f} times "
            "fp32"
        )
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> Any:
    """Plot images per second of each way, one panel for each stride."""
    from matplotlib.figure import Figure

    strides = list(dict.fromkeys(row["stride"] for row in rows))
    figure = Figure(figsize=(11, 3.2 * len(strides)), layout="constrained")
    panels = figure.subplots(len(strides), squeeze=False)[:, 0]
    for axes, stride in zip(panels, strides, strict=True):
        chosen = [row for row in rows if row["stride"] == stride][::-1]
        bars = axes.barh([r["row"] for r in chosen], [r["images_per_s"] for r in chosen])
        axes.bar_label(bars, fmt="%.1f", padding=3)
        axes.set_xlim(0, 1.12 * max(row["images_per_s"] for row in chosen))
        axes.set_xlabel("images a second (256 px)")
        axes.set_title(f"64 px patches at stride {stride}")
    return figure


def main() -> None:
    """Measure, write ``results/descriptors.md`` and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="one stride, fractions of a second")
    args = parser.parse_args()
    if args.task:
        print(json.dumps(run_task(json.loads(args.task))))
        return
    args.strides = (32,) if args.quick else STRIDES
    args.budget = 0.3 if args.quick else 6.0
    where = machine()
    images, data = real_images(GROUP if args.quick else 64, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), args.strides, images)
        rows, rates = measure(args, Path(folder))
    peak = peaks(rates)
    peak_text = ", ".join(f"{way} {value / 1e9:.0f}" for way, value in peak.items())
    ranges = ", ".join(
        f"{way} {min(r[way] for r in rates) / 1e9:.0f} to {max(r[way] for r in rates) / 1e9:.0f}"
        for way in rates[0]
    )
    name = "descriptors" + ("-gpu" if args.device == "gpu" else "") + "-quick" * args.quick
    write_result(
        name,
        [
            "# Descriptors of 64 px patches, Dense 1024-512",
            f"{where}. {len(images)} images of {data} at {SIZE} px; medians over steps of a batch.",
            f"Peak, GFLOP/s: {peak_text}; measured {len(rates)} times in between: {ranges}.",
            summary(rows),
            table([shown(row, peak) for row in rows]),
        ],
        plot(rows),
    )


if __name__ == "__main__":
    main()
