"""Shared parts of the benchmarks: description of the machine, subprocesses, timing, results."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenetrack.data.catalog import load_dataset
from scenetrack.data.images import load_images
from scenetrack.networks.vgg16_benchmark import processor_name

RESULTS = Path(__file__).parent / "results"
SHAPE = (2048, 4096, 2048)  # of the matrix product that stands for the machine's peak


def machine() -> str:
    """Return a line of date, processor, memory, load and versions, without folder or host names."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "onnxruntime", "onnxruntime-gpu", "tensorflow", "keras")
        if any(True for _ in importlib.metadata.distributions(name=name))
    ]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor_name()}, {pages / 2**30:.0f} GiB, load "
        f"{os.getloadavg()[0]:.1f} at the start, {platform.system()}, Python "
        f"{platform.python_version()}, {', '.join(versions)}"
    )


def peak_rss() -> float:
    """Return the peak memory of this process so far, in MB (10^6 bytes)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # On Linux the figure of getrusage is inherited from the parent process.
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6


def real_images(count: int, size: int) -> tuple[NDArray[np.uint8], str]:
    """Return uint8 [count, size, size, 3], evenly over the training images, and their source.

    They are of the real split if ``SCENETRACK_DATA`` names it, else of the demo data.
    """
    name = "mit8" if os.environ.get("SCENETRACK_DATA") else "demo"
    paths = load_dataset(name, seed=0).train.paths
    indices = np.linspace(0, len(paths) - 1, count).astype(int)
    return np.asarray(load_images([paths[index] for index in indices], size)), name


def in_own_process(script: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``script`` with ``--task`` and return what it prints; both are JSON objects."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, script, "--task", json.dumps(task)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{task}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def seconds_each(
    work: Iterator[Any], budget: float, *, fewest: int = 3, warm: int = 1
) -> list[float]:
    """Return the seconds of each step of ``work``, repeated until ``budget`` seconds have passed.

    Args:
        work: iterator that does one step each time it is advanced.
        budget: total time in seconds.
        fewest: least number of timed steps.
        warm: number of warm-up steps before the timed ones.
    """
    for _ in range(warm):
        next(work)
    gc.collect()
    seconds: list[float] = []
    while len(seconds) < fewest or sum(seconds) < budget:
        started = time.perf_counter()
        next(work)
        seconds.append(time.perf_counter() - started)
    return seconds


def times_by_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each way, timed by turns after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def speed_table(seconds: Mapping[str, float], images: int, against: str) -> str:
    """Return a table of milliseconds per image of each way, and the speed over ``against``."""
    return table(
        [
            {
                "way": name,
                "ms an image": f"{1000 * taken / images:.2f}",
                "times as fast": f"{seconds[against] / taken:.1f}",
            }
            for name, taken in seconds.items()
        ]
    )


def gemm_rates(budget: float) -> dict[str, float]:
    """Measure float32 matrix products of NumPy and ONNX Runtime, in operations per second."""
    from scenetrack.graphs.builder import GraphBuilder
    from scenetrack.graphs.runtime import OnnxModel

    rows, inner, columns = SHAPE
    rng = np.random.default_rng(0)
    left = rng.standard_normal((rows, inner), np.float32)
    right = rng.standard_normal((inner, columns), np.float32)
    builder = GraphBuilder("gemm")
    name = builder.input("left", np.float32, [rows, inner])
    product = builder.node("MatMul", name, builder.constant("right", right))
    builder.output("product", product, np.float32, [rows, columns])
    model = OnnxModel(builder.build({}).SerializeToString(), device="cpu")
    ways: dict[str, Callable[[], Any]] = {
        "numpy": lambda: left @ right,
        "onnxruntime": lambda: model.run(left=left),
    }
    operations = 2.0 * rows * inner * columns
    return {
        way: operations / statistics.median(seconds_each(_forever(run), budget))
        for way, run in ways.items()
    }


def gpu_rates(budget: float) -> dict[str, float]:
    """Measure matrix products on the GPU in float32, TF32 and float16, in operations per second."""
    import tensorflow as tf

    side, rates = 8192, {}
    for label, kind, tf32 in (
        ("fp32", tf.float32, False),
        ("tf32", tf.float32, True),
        ("fp16", tf.float16, True),
    ):
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        with tf.device("/GPU:0"):
            left, right = (tf.random.normal((side, side), dtype=kind) for _ in range(2))

        def step(left: Any = left, right: Any = right) -> None:
            # One number comes back, so that the product is done when the clock stops.
            float(tf.matmul(left, right)[0, 0])

        rates[label] = 2.0 * side**3 / statistics.median(seconds_each(_forever(step), budget))
    return rates


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table; its columns are the keys of the first row."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def write_result(name: str, parts: Sequence[str], figure: Any) -> None:
    """Write the paragraphs ``parts`` to ``results/NAME.md``, and the plot ``results/NAME.png``."""
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.png", dpi=120, bbox_inches="tight")
    text = "\n\n".join([*parts, f"![{name}]({name}.png)"]) + "\n"
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _forever(run: Callable[[], Any]) -> Iterator[Any]:
    while True:
        yield run()
