"""Verification of an ONNX graph against its source network, before the file is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from scenetrack.errors import ExportError
from scenetrack.graphs.runtime import OnnxModel

BATCH_SIZES = (1, 7)

# Both sides compute in float32 and differ only in the order of their sums: a Dense layer over
# thousands of values then differs by about 1e-6 of its outputs' range, a whole network by 1e-6 to
# 1e-5. A wrong weight, a missing layer, a batch normalisation in training mode or pixels scaled
# twice differ by 1e-3 or more. The range stands below the fraction, not each value: a value near
# zero is a difference of large ones, and its own relative error means nothing.
TOLERANCE = 1e-4

# Outputs in int8 or fp16 must have nearly the direction of those in fp32.
LOWEST_COSINE = 0.9

# Side of random test images where the graph takes images of any size.
FREE_LENGTH = 64


@dataclass(frozen=True)
class VerifyReport:
    """Largest error of each output over all test batches, relative to the output's range."""

    max_relative_error: Mapping[str, float]
    batch_sizes: tuple[int, ...]


def verify_against_keras(
    source: Path | bytes,
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    real_images: np.ndarray | None,
    seed: int,
    *,
    free_lengths: tuple[int, int] = (FREE_LENGTH, FREE_LENGTH),
) -> VerifyReport:
    """Compare the ONNX graph with its source on random and real images, at two batch sizes.

    Random images reach values that photographs do not, and photographs have the large flat
    regions that noise lacks.

    Args:
        source: the ONNX file or its bytes; one input, uint8 [N, H, W, 3].
        predict: the source: images uint8 [N, H, W, 3] -> array [N, ...] by output name.
        real_images: uint8 [M, H, W, 3], of which the first are used; None: random ones only.
        seed: of the random images.
        free_lengths: height and width of random images where the graph takes any.

    Raises:
        ExportError: an output's error exceeds TOLERANCE, is not finite, or has another shape.
        ModelError: the real images do not fit the graph's input.
    """
    # On the CPU, where float32 is float32: a GPU may round products to TF32.
    model = OnnxModel(source, device="cpu")
    (shape,) = model.inputs.values()
    errors = dict.fromkeys(model.outputs, 0.0)
    for images in _batches(shape, real_images, seed, free_lengths):
        actual, expected = model.predict(images, len(images)), predict(images)
        for name in errors:
            error = relative_error(expected[name], actual[name])
            if error > TOLERANCE:
                raise ExportError(
                    f"the exported graph must agree with its network to {TOLERANCE:g} of the "
                    f"output's range, but {name!r} differs by {error:.3g} at batch size "
                    f"{len(images)}: nothing was written; please report the network's layers"
                )
            errors[name] = max(errors[name], error)
    return VerifyReport(errors, BATCH_SIZES)


def verify_precision(
    exact: onnx.ModelProto,
    reduced: onnx.ModelProto,
    real_images: np.ndarray | None,
    seed: int,
    free_lengths: tuple[int, int],
) -> dict[str, float]:
    """Return the mean cosine of each output between a graph of reduced precision and fp32.

    Raises:
        ExportError: a value is not finite, or a mean cosine is below LOWEST_COSINE.
    """
    first, second = (
        OnnxModel(graph.SerializeToString(), device="cpu") for graph in (exact, reduced)
    )
    (shape,) = first.inputs.values()
    cosines: dict[str, list[np.ndarray]] = {name: [] for name in first.outputs}
    for images in _batches(shape, real_images, seed, free_lengths):
        expected, actual = (model.predict(images, len(images)) for model in (first, second))
        for name, values in cosines.items():
            values.append(row_cosines(expected[name], actual[name]))
    means = {name: float(np.concatenate(values).mean()) for name, values in cosines.items()}
    for name, mean in means.items():
        if not mean >= LOWEST_COSINE:
            raise ExportError(
                f"a graph of reduced precision must have a mean cosine of {LOWEST_COSINE:g} with "
                f"its fp32 original, but {name!r} has {mean:.3g}: nothing was written; choose "
                "another precision"
            )
    return means


def row_cosines(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of vectors along the last axis; 1 where both are zero."""
    first, second = (
        values.reshape(-1, values.shape[-1]).astype(np.float64) for values in (expected, actual)
    )
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.einsum("nd,nd->n", first, second)
    both_zero = ~(first.any(axis=1) | second.any(axis=1))
    return np.asarray(np.where(both_zero, 1.0, products / np.where(lengths > 0, lengths, 1.0)))


def relative_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the largest difference over the range (largest minus smallest) of ``expected``.

    Where the range is zero, the largest absolute value replaces it, or 1 where that is zero too.
    Infinite for different shapes, and where a value of either array is not finite.
    """
    if expected.shape != actual.shape or not (np.isfinite(expected) & np.isfinite(actual)).all():
        return float("inf")
    reference = np.asarray(expected, np.float64)
    scale = float(np.ptp(reference)) or float(np.abs(reference).max()) or 1.0
    return float(np.abs(reference - actual).max() / scale)


def _batches(
    shape: tuple[int, ...],
    real_images: np.ndarray | None,
    seed: int,
    free_lengths: tuple[int, int],
) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    free = (*free_lengths, shape[-1])
    sizes = [any_ if length < 0 else length for length, any_ in zip(shape[1:], free, strict=True)]
    random = [generator.integers(0, 256, (count, *sizes), np.uint8) for count in BATCH_SIZES]
    if real_images is None or not len(real_images):
        return random
    return random + [np.asarray(real_images[:count]) for count in BATCH_SIZES]
