"""Training benchmark: forward and backward pass of VGG-16, compared with published figures."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scenetrack.errors import ScenetrackError
from scenetrack.system.machine import available_cpus

logger = logging.getLogger(__name__)

SIDE, CLASSES = 224, 1000  # VGG-16: images of 224 x 224 x 3, 1,000 classes
REFERENCE_BATCH = 16
# Time limit in seconds for all repeats of a row where their number is not given.
_BUDGET = 60.0
_FEWEST, _MOST = 3, 50


@dataclass(frozen=True)
class Timing:
    """Median time of one pass over a batch, in milliseconds.

    ``backward`` is the additional time for the gradients of the loss to all weights.
    """

    machine: str
    batch: int
    forward: float
    total: float

    @property
    def backward(self) -> float:
        """Milliseconds of the backward pass alone."""
        return self.total - self.forward


# github.com/jcjohnson/cnn-benchmarks: VGG-16, 16 x 3 x 224 x 224, Torch, CUDA 8 (2016).
REFERENCES = (
    Timing("Pascal Titan X, cuDNN 5.1 (2016)", REFERENCE_BATCH, 41.59, 128.62),
    Timing("GTX 1080, cuDNN 5.1 (2016)", REFERENCE_BATCH, 59.37, 182.79),
    Timing("Maxwell Titan X, cuDNN 5.1 (2016)", REFERENCE_BATCH, 62.30, 192.78),
    Timing("2 x Xeon E5-2630 v3 (2016)", REFERENCE_BATCH, 3101.76, 8495.48),
)


def bench_vgg16(batch: int, device: str, repeats: int | None) -> str:
    """Time VGG-16 with random weights on random images and compare it with published figures.

    On a CPU in float32; on a GPU in float32, in TF32 and with float16 layers, compiled by XLA.

    Args:
        batch: images in a batch; the published figures are for 16.
        device: "cpu"; "gpu", which fails without a GPU; "auto" for a GPU where there is one.
        repeats: timed passes of each kind; None: as many as fit into a minute.

    Returns:
        Text of several lines, with a table.

    Raises:
        ScenetrackError: there is no GPU, or not enough memory.
    """
    place, name = _find_device(device)
    timings = []
    for label, tf32, policy in _precisions(place):
        logger.info("timing VGG-16 on %d images, %s, %s", batch, name, label)
        with _arithmetic(tf32, policy), _out_of_memory(batch):
            forward, total = time_vgg16(place, batch, repeats)
        timings.append(Timing(f"{name}, {label}", batch, forward, total))
    return "\n".join([_heading(batch), "", format_table([*timings, *REFERENCES])])


def format_table(timings: Sequence[Timing]) -> str:
    """Return a Markdown table of timings; images per second are for the total time."""
    rows: list[tuple[str, ...]] = [
        ("machine", "batch", "forward ms", "backward ms", "total ms", "images/s")
    ]
    for timing in timings:
        passes = (timing.forward, timing.backward, timing.total)
        speed = 1000 * timing.batch / timing.total
        rows.append(
            (timing.machine, str(timing.batch), *(f"{ms:.2f}" for ms in passes), f"{speed:.1f}")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| "
        + " | ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    )


def time_vgg16(place: str, batch: int, repeats: int | None) -> tuple[float, float]:
    """Return the milliseconds of a forward pass, and of a forward and backward pass.

    Args:
        place: name of the device in TensorFlow.
        batch: images in a batch.
        repeats: see ``bench_vgg16``.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    with tf.device(place):
        network = keras.applications.VGG16(weights=None, classifier_activation=None)
        images = tf.constant(rng.standard_normal((batch, SIDE, SIDE, 3), np.float32))
        labels = tf.constant(rng.integers(0, CLASSES, batch))
        forward, total = passes(network, images, labels, compiled="GPU" in place)
        return median_ms(forward, repeats), median_ms(total, repeats)


def passes(
    network: Any, images: Any, labels: Any, *, compiled: bool
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return functions for a forward pass, and for one with the gradients to all weights.

    Args:
        network: a Keras model that returns logits.
        images: tensor float32 [N, H, W, 3].
        labels: tensor int64 [N].
        compiled: whether XLA compiles the passes.

    Returns:
        Two functions without arguments that return when the computation is complete. The first
        returns the logits float32 [N, C], the second the gradients, in the order of the weights.
    """
    import tensorflow as tf

    @tf.function(jit_compile=compiled)
    def infer() -> Any:
        return network(images, training=False)

    @tf.function(jit_compile=compiled)
    def learn() -> Any:
        with tf.GradientTape() as tape:
            logits = tf.cast(network(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_weights])
        # A small tensor that depends on all gradients: GPUs compute asynchronously, and copying
        # all gradients would be included in the time.
        with tf.control_dependencies(gradients):
            return gradients, tf.identity(loss)

    def forward() -> Any:
        return infer().numpy()

    def total() -> Any:
        gradients, loss = learn()
        loss.numpy()
        return gradients

    return forward, total


def median_ms(run: Callable[[], Any], repeats: int | None) -> float:
    """Return the median milliseconds of ``run``, after a first call that is not counted.

    Args:
        run: function to time.
        repeats: number of timed calls; None: at least 3, at most 50 or half a minute.
    """
    run()
    seconds: list[float] = []
    while len(seconds) < (repeats or _MOST):
        if repeats is None and len(seconds) >= _FEWEST and sum(seconds) > _BUDGET / 2:
            break
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def processor_name() -> str:
    """Return the processor's model and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else name}, {available_cpus()} cores"


def _heading(batch: int) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras")
    )
    return (
        f"VGG-16, {batch} x 3 x {SIDE} x {SIDE}, random weights, {datetime.now(UTC):%Y-%m-%d}, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}"
    )


def _find_device(device: str) -> tuple[str, str]:
    """Return the name of the device in TensorFlow, and its product name."""
    import tensorflow as tf

    gpus = [] if device == "cpu" else tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return "/GPU:0", str(details.get("device_name", "GPU"))
    if device == "gpu":
        raise ScenetrackError(
            "a GPU is required, but TensorFlow finds none: check nvidia-smi and install "
            "'scenetrack[gpu]', or choose the device auto or cpu"
        )
    return "/CPU:0", processor_name()


def _precisions(place: str) -> list[tuple[str, bool, str]]:
    """Return label, whether products are rounded to TF32, and Keras' policy of each row."""
    rows = [("float32", False, "float32")]
    if "GPU" in place:
        rows += [("TF32", True, "float32"), ("float16", True, "mixed_float16")]
    return rows


@contextmanager
def _arithmetic(tf32: bool, policy: str) -> Iterator[None]:
    import keras
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    policy_before = keras.config.dtype_policy()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy_before)
        tf.config.experimental.enable_tensor_float_32_execution(before)
        gc.collect()  # frees the memory of this network for the next one


@contextmanager
def _out_of_memory(batch: int) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ScenetrackError(
            f"VGG-16 requires about {_gigabytes(batch):.0f} GB of memory for {batch} images, and "
            "less is free: choose a smaller --batch"
        ) from error


def _gigabytes(batch: int) -> float:
    """Return the peak memory of a pass in GB, as measured on a CPU with 2 and 16 images."""
    return 2.1 + 0.08 * batch
