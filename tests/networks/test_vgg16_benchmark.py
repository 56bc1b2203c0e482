"""The training benchmark: what is timed, how often, and the printed table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from scenetrack.cli import main
from scenetrack.errors import ScenetrackError
from scenetrack.networks import vgg16_benchmark as bench
from scenetrack.networks.vgg16_benchmark import Timing, format_table, median_ms, passes


def test_passes_give_logits_and_the_gradients_to_all_weights() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, 2, 2, 3)).astype(np.float32)
    labels = rng.integers(0, 4, 5)
    source = keras.Input((2, 2, 3))
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(source))
    network = keras.Model(source, logits)
    forward, total = passes(network, tf.constant(images), tf.constant(labels), compiled=False)
    kernel, bias = (np.asarray(weight) for weight in network.trainable_weights)
    flat = images.reshape(5, -1)
    expected = flat @ kernel + bias
    np.testing.assert_allclose(forward(), expected, rtol=1e-5, atol=1e-5)
    # The gradient of cross-entropy to the logits is softmax minus the one-hot label.
    odds = np.exp(expected)
    slope = (odds / odds.sum(axis=1, keepdims=True) - np.eye(4)[labels]) / 5
    actual = [np.asarray(gradient) for gradient in total()]
    np.testing.assert_allclose(actual[0], flat.T @ slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(actual[1], slope.sum(axis=0), rtol=1e-4, atol=1e-6)


class _Clock:
    """A clock that advances only while the timed function runs."""

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.runs, self.seconds = 0.0, 0, seconds

    def run(self) -> None:
        self.now += self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1

    def median(self, monkeypatch: pytest.MonkeyPatch, repeats: int | None) -> float:
        monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: self.now))
        return median_ms(self.run, repeats)


def test_median_leaves_out_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock([100.0, 3.0, 1.0, 2.0])
    assert clock.median(monkeypatch, 3) == 2000
    assert clock.runs == 4


@pytest.mark.parametrize(("seconds", "runs"), [(0.001, 50), (4.0, 8), (60.0, 3)])
def test_repeats_fit_the_budget(monkeypatch: pytest.MonkeyPatch, seconds: float, runs: int) -> None:
    clock = _Clock([seconds])
    assert clock.median(monkeypatch, None) == pytest.approx(1000 * seconds)
    assert clock.runs == 1 + runs


def test_table_tells_backward_and_images_a_second() -> None:
    lines = format_table([Timing("a machine", 16, 40.0, 128.0)]).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["a machine", "16", "40.00", "88.00", "128.00", "125.0"]
    assert len({len(line) for line in lines}) == 1


def test_references_are_the_published_ones() -> None:
    published = [(round(row.forward, 2), round(row.backward, 2)) for row in bench.REFERENCES]
    assert published == [(41.59, 87.03), (59.37, 123.42), (62.3, 130.48), (3101.76, 5393.72)]


def test_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def timed(*arguments: Any) -> tuple[float, float]:
        asked.append(arguments)
        return 10.0, 40.0

    monkeypatch.setattr(bench, "time_vgg16", timed)
    assert main(["bench", "vgg16", "--batch", "2", "--device", "cpu", "--repeats", "7"]) == 0
    assert asked == [("/CPU:0", 2, 7)]
    output = capsys.readouterr().out
    assert output.startswith("VGG-16, 2 x 3 x 224 x 224, random weights, 20")
    for text in ("float32", "10.00", "30.00", "50.0", "Pascal Titan X", "128.62"):
        assert text in output


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(ScenetrackError, match="a GPU is required, but TensorFlow finds none"):
        bench.bench_vgg16(1, "gpu", 1)


def test_too_large_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(bench, "time_vgg16", fail)
    with pytest.raises(ScenetrackError, match=r"choose a smaller --batch"):
        bench.bench_vgg16(1000, "cpu", 1)


def test_a_gpu_is_timed_in_three_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def timed(place: str, *_: Any) -> tuple[float, float]:
        tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
        seen.append((place, tf32, keras.config.dtype_policy().name))
        return 1.0, 3.0

    monkeypatch.setattr(bench, "_find_device", lambda device: ("/GPU:0", "a GPU"))
    monkeypatch.setattr(bench, "time_vgg16", timed)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    table = bench.bench_vgg16(16, "auto", None)
    assert seen == [
        ("/GPU:0", False, "float32"),
        ("/GPU:0", True, "float32"),
        ("/GPU:0", True, "mixed_float16"),
    ]
    assert all(f"a GPU, {label}" in table for label in ("float32", "TF32", "float16"))
    assert keras.config.dtype_policy().name == "float32"
    assert tf.config.experimental.tensor_float_32_execution_enabled() == before


def test_processor_has_a_name() -> None:
    assert bench.processor_name().endswith(" cores")
