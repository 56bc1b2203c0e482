"""The real command predict: pipes, signals, memory, and what it does not import."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_bundle import fake_bundle, paint
from pyarrow import parquet
from workplace import Workplace, finished

from scenetrack.delivery.rows import from_json

MANY = 2001
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}
# Little memory makes small batches, so that a signal finds work in the middle.
SMALL = ("--memory", "16")


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Path:
    """A bundle and a folder of many images, which are links to three files."""
    folder = workplace.root / "predict"
    colours = {"r": (200, 0, 0), "g": (9, 99, 50), "b": (1, 2, 250)}
    originals = [paint(folder / f"{name}.png", colour, 64) for name, colour in colours.items()]
    (folder / "many").mkdir()
    for index in range(MANY):
        os.link(originals[index % 3], folder / "many" / f"{index:04}.png")
    fake_bundle(folder / "fake.onnx", image_size="96")
    return folder


def start(workplace: Workplace, place: Path, *words: str) -> subprocess.Popen[str]:
    return workplace.start("scenetrack", "predict", str(place / "fake.onnx"), *words)


@pytest.fixture(scope="module")
def whole(workplace: Workplace, place: Path) -> Path:
    """The rows of all images, in one go."""
    output = place / "whole.jsonl"
    out, _ = finished(start(workplace, place, str(place / "many"), "-o", str(output)))
    assert out == ""
    return output


def assert_same(output: Path, whole: Path) -> None:
    """Equal rows but for the last digit of a probability, which depends on who shares a batch."""
    actual, expected = (
        [from_json(line) for line in file.read_bytes().splitlines()] for file in (output, whole)
    )
    assert [(row.path, row.error) for row in actual] == [(row.path, row.error) for row in expected]
    for one, other in zip(actual, expected, strict=True):
        assert [name for name, _ in one.top] == [name for name, _ in other.top]
        shown = [probability for _, probability in one.top]
        assert shown == pytest.approx([probability for _, probability in other.top], rel=1e-6)


def test_order_and_labels(whole: Path, place: Path) -> None:
    rows = [from_json(line) for line in whole.read_bytes().splitlines()]
    assert [row.path for row in rows] == [
        str(place / "many" / f"{index:04}.png") for index in range(MANY)
    ]
    assert [row.top[0][0] for row in rows] == ["red", "green", "blue"] * (MANY // 3)


@pytest.mark.parametrize("name", SIGNALS)
def test_goes_on_after_a_signal(workplace: Workplace, place: Path, whole: Path, name: str) -> None:
    output = place / f"{name}.jsonl"
    partial = Path(f"{output}.partial")
    words = (str(place / "many"), "-o", str(output), *SMALL)
    process = start(workplace, place, *words)
    end = time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 20):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.Signals[name])
    _, err = finished(process, SIGNALS[name])
    assert "Traceback" not in err
    assert not output.exists()
    kept = partial.read_bytes().count(b"\n") - 1
    assert 20 <= kept < MANY

    _, err = finished(start(workplace, place, *words))
    assert f"reusing {kept} rows of" in err
    assert_same(output, whole)
    assert not list(place.glob(f"{name}.jsonl.*"))


def test_two_on_one_file(workplace: Workplace, place: Path, whole: Path) -> None:
    output = place / "two.jsonl"
    words = (str(place / "many"), "-o", str(output), *SMALL)
    first = start(workplace, place, *words)
    partial = Path(f"{output}.partial")
    while not (partial.exists() and partial.stat().st_size):
        assert first.poll() is None, first.communicate()
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    try:
        _, err = finished(start(workplace, place, *words), 1)
    finally:
        first.send_signal(signal.SIGCONT)
    assert err.splitlines() == [
        f"error: another process is writing {output}: wait for it or choose another output"
    ]
    finished(first)
    assert_same(output, whole)


def test_parquet_and_csv_tell_the_same(workplace: Workplace, place: Path) -> None:
    words = (str(place / "*.png"), str(place / "fake.onnx"))
    for name in ("same.csv", "same.parquet"):
        finished(start(workplace, place, *words, "-o", str(place / name)), 2)
    with (place / "same.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(place / "same.parquet").to_pylist()
    assert len(rows) == len(table) == 4
    for row, values in zip(rows, table, strict=True):
        assert list(row) == list(values)
        for name, value in values.items():
            number = isinstance(value, float)
            shown = float(row[name]) if number else row[name]
            assert shown == (pytest.approx(value, rel=1e-6) if number else value or "")


def test_list_piped_in_and_head_closing_the_pipe(workplace: Workplace, place: Path) -> None:
    command = (
        f"find {place}/many -name '*.png' -print0 | sort -z | "
        f"scenetrack predict {place}/fake.onnx - {' '.join(SMALL)} | head -n 3"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}; echo ${{PIPESTATUS[@]}}"],
        env=workplace.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    *rows, codes = done.stdout.splitlines()
    assert [row.split(",")[0] for row in rows] == [
        "path",
        f"{place}/many/0000.png",
        f"{place}/many/0001.png",
    ]
    assert codes.split()[2:] == ["1", "0"]
    assert done.stderr == ""


def test_no_gpu_fails_in_one_line(workplace: Workplace, place: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    out, err = finished(start(workplace, place, str(place / "r.png"), "--require-gpu"), 1)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: the GPU is required")


MEASURED = """
import json, resource, sys
from scenetrack.cli import main
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps([code, peak, modules]), file=sys.stderr)
"""


def measured(workplace: Workplace, *words: str) -> tuple[int, set[str]]:
    """Peak memory in KB and the libraries imported by a call in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "predict", *words],
        env=workplace.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    code, peak, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return peak, set(modules)


def test_memory_is_flat_and_nothing_heavy_is_imported(workplace: Workplace, place: Path) -> None:
    """2,000 images of 256 px would take 390 MB if they were kept, 200 of them 39 MB."""
    bundle = fake_bundle(place / "large.onnx", image_size="256")
    paths = [str(path) for path in sorted((place / "many").iterdir())]
    peaks = []
    for count in (200, 2000):
        output = place / f"{count}.csv"
        words = (str(bundle), *paths[:count], "--memory", "64", "-o", str(output))
        peak, modules = measured(workplace, *words)
        peaks.append(peak)
        heavy = {"tensorflow", "keras", "matplotlib", "mlflow", "sklearn", "pandas", "pyarrow"}
        assert not modules & heavy
        assert output.read_text().count("\n") == count + 1
    assert peaks[1] - peaks[0] < 20_000
