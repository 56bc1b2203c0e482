"""The arithmetic of the benchmarks: operations, peaks, shares, and what is timed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("_machine", "_finished", "descriptors", "latency", "predict")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, which they see of each other as when they are run."""
    pytest.importorskip("resource", reason="the benchmarks measure memory as Unix tells it")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        sys.modules.pop(name, None)


def test_operations_of_a_patch(benchmarks: dict[str, ModuleType]) -> None:
    # 64 x 64 x 3 -> 1024 -> 512, a multiplication and an addition for each weight.
    assert benchmarks["descriptors"].flops_per_patch() == 2 * (12_288 * 1024 + 1024 * 512)


def test_share_of_the_peak(benchmarks: dict[str, ModuleType]) -> None:
    module = benchmarks["descriptors"]
    row = {
        "stride": 32,
        "row": "a way",
        "rate": "fp32",
        "batch": 4,
        "images_per_s": 10.0,
        "cosine": (0.5, 0.75),
        "images": [8, 80],
        "rss": [100.4, 101.6],
    }
    # 7 x 7 patches an image.
    peak = {"fp32": 490 * module.flops_per_patch() / 0.25}
    shown = module.shown(row, peak)
    assert shown["patches/s"] == "490"
    assert shown["share of peak"] == "0.25"
    assert shown["peak MB after images"] == "100 (8) / 102 (80)"


def test_peak_is_the_faster_way_on_a_cpu_and_each_precision_on_a_gpu(
    benchmarks: dict[str, ModuleType],
) -> None:
    peaks = benchmarks["descriptors"].peaks
    rates = [{"numpy": 1.0, "onnxruntime": 7.0}, {"numpy": 5.0, "onnxruntime": 2.0}]
    rates.append({"numpy": 6.0, "onnxruntime": 3.0})
    assert peaks(rates) == {"fp32": 5.0, "tf32": 5.0, "fp16": 5.0}
    gpu = {"fp32": 1.0, "tf32": 2.0, "fp16": 4.0}
    assert peaks([gpu, gpu]) == gpu


def test_every_row_has_a_rate_and_a_name_of_its_own(benchmarks: dict[str, ModuleType]) -> None:
    tasks = benchmarks["descriptors"].tasks_of(16)
    assert len({task["row"] for task in tasks}) == len(tasks) == 3 + 3 * 3
    assert {task["rate"] for task in tasks} == {"fp32", "tf32", "fp16"}
    assert all(task["stride"] == 16 for task in tasks)


def test_groups_go_round(benchmarks: dict[str, ModuleType]) -> None:
    groups = benchmarks["descriptors"].groups(np.arange(5), 3)
    assert [next(groups).tolist() for _ in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_cosines(benchmarks: dict[str, ModuleType]) -> None:
    left = np.array([[[1.0, 0.0], [3.0, 4.0]]])
    right = np.array([[[1.0, 0.0], [4.0, 3.0]]])
    assert benchmarks["descriptors"].cosine(left, right) == pytest.approx((0.96, 0.98))


def test_steps_are_timed_until_the_budget_is_spent(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, now = benchmarks["_machine"], [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def steps() -> Iterator[None]:
        for seconds in (50.0, 1.0, 2.0, 3.0, 4.0, 5.0):
            now[0] += seconds
            yield

    assert module.seconds_each(steps(), 6.5, fewest=2) == [1.0, 2.0, 3.0, 4.0]
    now[0] = 0.0
    assert module.seconds_each(steps(), 0.0, fewest=2, warm=0) == [50.0, 1.0]


def test_table(benchmarks: dict[str, ModuleType]) -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": ""}]
    assert benchmarks["_machine"].table(rows) == "| a | b |\n|---|---|\n| 1 | x |\n| 2 |  |"


def test_machine_names_no_folder(benchmarks: dict[str, ModuleType]) -> None:
    listed = benchmarks["_machine"].machine()
    assert "cores" in listed
    assert str(Path.home()) not in listed
    assert benchmarks["_machine"].peak_rss() > 10


def test_whole_against_its_parts(benchmarks: dict[str, ModuleType]) -> None:
    module = benchmarks["predict"]
    seconds = {part: {"seconds": 1.0} for part in module.PARTS}
    seconds[module.DECODING] = {"seconds": 2.0}
    seconds[module.WHOLE] = {"seconds": 2.4}
    listed = module.summary(seconds)
    assert "1.20 times as long as the slower" in listed
    assert "0.80 times as long as decoding and the bundle" in listed
