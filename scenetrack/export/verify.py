"""Holds an ONNX graph against the network it was made from; what fails is not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenetrack.errors import ExportError
from scenetrack.runtime import OnnxModel

BATCH_SIZES = (1, 7)

# Both sides compute in float32 and differ only in the order of their sums: a Dense layer over
# thousands of values then differs by about 1e-6 of its outputs' range, a whole network by 1e-6 to
# 1e-5. A wrong weight, a missing layer, a batch normalisation in training mode or pixels scaled
# twice differ by 1e-3 or more. The range stands below the fraction, not each value: a value near
# zero is a difference of large ones, and its own relative error means nothing.
TOLERANCE = 1e-4

# Any size will do where the graph takes images of any size and no real one is at hand.
FREE_LENGTH = 64


@dataclass(frozen=True)
class VerifyReport:
    """The largest error of each output, relative to its range, over all batches tried."""

    max_relative_error: Mapping[str, float]
    batch_sizes: tuple[int, ...]


def verify_against_keras(
    source: Path | bytes,
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    real_images: np.ndarray | None,
    seed: int,
) -> VerifyReport:
    """Compare the ONNX graph with its source on random and on real images, at two batch sizes.

    Random images reach values that photographs do not, and photographs have the large flat
    regions that noise lacks.

    Args:
        source: the ONNX file or its bytes; one input, uint8 [N, H, W, 3].
        predict: the source: images uint8 [N, H, W, 3] -> array [N, ...] by output name.
        real_images: uint8 [M, H, W, 3], of which the first are used; None: random ones only.
        seed: of the random images.

    Raises:
        ExportError: an output's error exceeds TOLERANCE, is not finite, or has another shape.
        ModelError: the real images do not fit the graph's input.
    """
    # On the CPU, where float32 is float32: a GPU may round products to TF32.
    model = OnnxModel(source, device="cpu")
    (shape,) = model.inputs.values()
    errors = dict.fromkeys(model.outputs, 0.0)
    for images in _batches(shape, real_images, seed):
        came, expected = model.predict(images, len(images)), predict(images)
        for name in errors:
            error = relative_error(expected[name], came[name])
            if error > TOLERANCE:
                raise ExportError(
                    f"the exported graph must agree with its network to {TOLERANCE:g} of the "
                    f"output's range, but {name!r} differs by {error:.3g} at batch size "
                    f"{len(images)}: nothing was written; please report the network's layers"
                )
            errors[name] = max(errors[name], error)
    return VerifyReport(errors, BATCH_SIZES)


def relative_error(expected: np.ndarray, came: np.ndarray) -> float:
    """The largest difference over the range (largest minus smallest) of ``expected``.

    Over the largest absolute value where the range is zero, and over 1 where that is zero too.
    Infinite for different shapes, and where a value of either side is not finite.
    """
    if expected.shape != came.shape or not (np.isfinite(expected) & np.isfinite(came)).all():
        return float("inf")
    reference = np.asarray(expected, np.float64)
    scale = float(np.ptp(reference)) or float(np.abs(reference).max()) or 1.0
    return float(np.abs(reference - came).max() / scale)


def _batches(shape: tuple[int, ...], real_images: np.ndarray | None, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = shape[1:] if real_images is None else real_images.shape[1:]
    sizes = [FREE_LENGTH if length < 0 else length for length in lengths]
    random = [generator.integers(0, 256, (count, *sizes), np.uint8) for count in BATCH_SIZES]
    if real_images is None or not len(real_images):
        return random
    return random + [np.asarray(real_images[:count]) for count in BATCH_SIZES]
