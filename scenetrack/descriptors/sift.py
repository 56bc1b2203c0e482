"""Dense SIFT as an ONNX graph: handcrafted descriptors of a regular grid at several scales.

D. G. Lowe, "Distinctive image features from scale-invariant keypoints", 2004, section 6, without
rotation; square-rooted as in Arandjelovic and Zisserman, "Three things everyone should know to
improve object retrieval", 2012, section 3.

The weight of a pixel in a spatial bin, triangle times Gaussian window, is separable: a factor of
its row times a factor of its column. So the histograms of all grid points are two matrix products
of the orientation maps, without a loop over key points. Where bins are large enough, the maps are
first summed over squares of pixels, which reduces the work to a quarter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.errors import ConfigError
from scenetrack.graphs.builder import GraphBuilder

BINS, ORIENTATIONS = 4, 8
WIDTH = BINS * BINS * ORIENTATIONS
# Scale of the values as bytes: square roots of shares are hardly ever above half.
STEPS_PER_UNIT = 512
# Clipping limit of a descriptor of length 1: Lowe, section 6.1.
_LARGEST = 0.2
# The standard deviation of the Gaussian window is half the descriptor's width (section 6.1).
_WINDOW_BINS = BINS / 2
# If all bins have at least this size in pixels, pairs of pixels along each axis are summed before
# they are weighted: a quarter of the products.
_POOLED_BIN = 4
# Smaller weights are set to 0. Those of least squares decay so fast that products would become
# subnormal numbers, on which processors take up to a hundred times as long.
_NEGLIGIBLE = 1e-6
# A histogram of smaller norm, in grey levels per squared pixel of a bin, holds only the rounding
# errors of a flat patch; an edge of one grey level gives a hundred times as much.
_SILENCE = 1e-3
_TINY = float(np.finfo(np.float32).tiny)
_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)
# van de Sande, Gevers and Snoek, "Evaluating color descriptors for object and scene recognition",
# 2010, equation 6.
_OPPONENT = np.array(
    [
        [1 / np.sqrt(2), -1 / np.sqrt(2), 0],
        [1 / np.sqrt(6), 1 / np.sqrt(6), -2 / np.sqrt(6)],
        [1 / np.sqrt(3), 1 / np.sqrt(3), 1 / np.sqrt(3)],
    ],
    np.float32,
)


@dataclass(frozen=True)
class SiftGrid:
    """Grid of a dense SIFT: positions, scales and colour of the descriptors.

    Attributes:
        image_size: side S of the square image in pixels.
        step: pixels between neighbouring grid points.
        bin_sizes: side of a spatial bin in pixels for each scale; a descriptor spans 4 bins.
        colour: one of ``config.COLOURS``.
        smoothing: standard deviation in pixels of the blur before the gradients; 0: none.

    Raises:
        ConfigError: a descriptor is larger than the image.
    """

    image_size: int
    step: int
    bin_sizes: tuple[int, ...]
    colour: str
    smoothing: float

    def __post_init__(self) -> None:
        largest = BINS * max(self.bin_sizes)
        if largest > self.image_size:
            raise ConfigError(
                f"a descriptor of {BINS} bins must fit into the image. Received: bins of "
                f"{max(self.bin_sizes)} px in an image of {self.image_size} px; choose smaller "
                "bin_sizes or a larger image_size"
            )

    @property
    def width(self) -> int:
        """Number of values of a descriptor."""
        return WIDTH * len(self.mixing)

    @property
    def mixing(self) -> NDArray[np.float32]:
        """Weights of R, G and B in each channel: float32 [channels, 3]."""
        return _GREY if self.colour == "grey" else _OPPONENT

    def centres(self, bin_size: int) -> NDArray[np.int64]:
        """Return the grid points along a side in pixels; margins differ by one pixel at most."""
        room = self.image_size - BINS * bin_size
        first = BINS * bin_size // 2 + room % self.step // 2
        return np.arange(first, first + room + 1 - room % self.step, self.step)

    @property
    def positions(self) -> NDArray[np.float32]:
        """Centres (y, x) of all descriptors as shares of the side: float32 [n, 2], in (0, 1)."""
        grids = []
        for bin_size in self.bin_sizes:
            centres = (self.centres(bin_size) + 0.5) / self.image_size
            grids.append(np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2))
        return np.concatenate(grids).astype(np.float32)

    @property
    def pace(self) -> int:
        """Number of pixels along a side that are summed before they are weighted: 1 or 2."""
        return 2 if min(self.bin_sizes) >= _POOLED_BIN else 1

    @property
    def _pixels(self) -> NDArray[np.int64]:
        """Pixels of a line that have a gradient, in groups to sum: int64 [cells, pace]."""
        # With an odd side the last pixel, which has no gradient, completes the last group.
        return np.arange(1, self.image_size - 1 + self.image_size % 2).reshape(-1, self.pace)

    def pixel_weights(self, bin_size: int) -> NDArray[np.float64]:
        """Return weights of a line's pixels in the bins of the points: float64 [4, points, S]."""
        offsets = np.arange(self.image_size) - self.centres(bin_size)[:, None]
        distances = offsets / bin_size
        window = np.exp(-(distances**2) / (2 * _WINDOW_BINS**2))
        bins = np.arange(BINS) - (BINS - 1) / 2
        triangles = np.maximum(0, 1 - np.abs(distances - bins[:, None, None]))
        return np.asarray(triangles * window)

    def weights(self, bin_size: int) -> NDArray[np.float32]:
        """Return weights of sums of ``pace`` pixels of a line: float32 [4, points, cells].

        They are the least-squares approximation to the histograms of ``pixel_weights`` for pixels
        that correlate as exp(-distance). At bins of 4 px, averaging the weights of each sum
        instead would double the error of the descriptors.
        """
        pixels = self._pixels.ravel()
        weights = self.pixel_weights(bin_size)[..., pixels]
        alike = np.exp(-np.abs(pixels[:, None] - pixels))
        sums = np.repeat(np.eye(len(self._pixels)), self.pace, axis=1)
        best = np.linalg.solve(sums @ alike @ sums.T, sums @ alike)
        pooled = weights @ best.T
        pooled[np.abs(pooled) < _NEGLIGIBLE] = 0
        return np.asarray(pooled, np.float32)

    def filters(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return matrices that blur a line of pixels, and that blur and differentiate it.

        Both are float32 [cells, pace, S], one row per resulting pixel. Pixels outside the image
        mirror those inside.
        """
        size = self.image_size
        # Mirrored pixels lie no farther out than the length of the line.
        radius = min(int(np.ceil(4 * self.smoothing)), size - 1)
        places = np.arange(-radius, radius + 1)
        kernel = np.exp(-(places**2) / (2 * max(self.smoothing, _TINY) ** 2))
        reach = np.arange(size)[:, None] + places
        mirrored = np.pad(np.arange(size), size - 1, mode="reflect")[reach + size - 1]
        blur = np.zeros((size, size))
        np.add.at(blur, (np.arange(size)[:, None], mirrored), kernel / kernel.sum())
        slope = np.zeros((size, size))
        slope[1:-1] = blur[2:] - blur[:-2]
        blur[[0, -1]] = 0
        return blur[self._pixels].astype(np.float32), slope[self._pixels].astype(np.float32)


def sift_graph(grid: SiftGrid, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return the graph from ``images`` uint8 [N, S, S, 3] to ``descriptors`` uint8 [N, n, D].

    A value of 1 is 512 steps.

    Args:
        grid: geometry and colour.
        metadata: stored in the graph, together with the geometry.
    """
    builder = GraphBuilder("dense_sift")
    size = grid.image_size
    images = builder.input("images", np.uint8, ["batch", size, size, 3])
    values = builder.node("Cast", images, to=TensorProto.FLOAT)
    mixed = builder.node("MatMul", values, builder.constant("mixing", grid.mixing.T))
    planes = builder.node("Transpose", mixed, perm=[0, 3, 1, 2])
    maps = _orientation_maps(builder, *_gradients(builder, planes, grid))
    scales = []
    for bin_size in grid.bin_sizes:
        with builder.scope(f"bin{bin_size}"):
            scales.append(_descriptors(builder, maps, grid, bin_size))
    joined = scales[0] if len(scales) == 1 else builder.node("Concat", *scales, axis=2)
    if len(grid.mixing) > 1:
        joined = builder.node("Transpose", joined, perm=[0, 2, 1, 3])
    shape = len(grid.positions), grid.width
    joined = builder.node("Reshape", joined, _shape(builder, 0, *shape))
    builder.output("descriptors", joined, np.uint8, ["batch", *shape])
    # All float32 tensors; ONNX Runtime holds a quarter at once. The more of them fit into the
    # processor's cache, the faster: a batch of 12 takes a third more time per image than one of 1.
    workspace = 4 * len(grid.mixing) * (32 * size**2 + 7 * len(grid.positions) * WIDTH)
    about = {
        "image_size": str(size),
        "step": str(grid.step),
        "bin_sizes": json.dumps(grid.bin_sizes),
        "colour": grid.colour,
        "smoothing": repr(grid.smoothing),
        "workspace_bytes": str(workspace),
    }
    return builder.build({**metadata, **about})


def _gradients(builder: GraphBuilder, planes: str, grid: SiftGrid) -> tuple[str, str]:
    """Add the rightward and downward differences of the blurred planes [B, c, S, S].

    Both are [B, c, cells, pace * pace, cells]: the pixels to sum lie along one axis.
    """
    blur, slope = grid.filters()
    cells, pace, size = blur.shape
    shape = _shape(builder, 0, 0, cells, pace * pace, cells)
    gradients = []
    for across, along in ((slope, blur), (blur, slope)):
        columns = across.transpose(2, 1, 0).reshape(size, -1)
        lines = builder.node("MatMul", planes, builder.constant("columns", columns))
        rows = builder.constant("rows", along.reshape(-1, size))
        gradients.append(builder.node("Reshape", builder.node("MatMul", rows, lines), shape))
    return gradients[0], gradients[1]


def _orientation_maps(builder: GraphBuilder, right: str, down: str) -> str:
    """Add the components of the gradients along 8 directions, summed: [B, c, cells, 8 cells].

    Direction k points to k * 45 degrees, y downwards. A gradient is the sum of two vectors along
    its neighbouring directions: along the axis, the larger side minus the smaller; along the
    diagonal, the smaller side times the root of 2. Lowe divides its length in proportion to the
    angle instead. The lengths of the two vectors together exceed it by 0 to 8%, which hardly
    changes a descriptor (cosines above 0.9999) and requires neither angles nor roots.
    """
    left, up = builder.node("Neg", right), builder.node("Neg", down)
    wide, tall = builder.node("Abs", right), builder.node("Abs", down)
    root, axis, maps = _number(builder, np.sqrt(2)), _shape(builder, 3), []
    sides = (right, tall, down), (down, wide, left), (left, tall, up), (up, wide, right)
    for side, across, following in sides:
        smaller = builder.node("Min", side, following)
        for part in (builder.node("Sub", side, across), builder.node("Mul", smaller, root)):
            maps.append(builder.node("ReduceSum", builder.node("Relu", part), axis))
    joined = builder.node("Concat", *maps, axis=3)
    return builder.node("Reshape", joined, _shape(builder, 0, 0, 0, -1))


def _descriptors(builder: GraphBuilder, maps: str, grid: SiftGrid, bin_size: int) -> str:
    """Add the descriptors of orientation maps [B, c, cells, 8 cells]: uint8 [B, c, points, 128].

    The 128 values are ordered by row of bins, direction, column of bins.
    """
    weights = grid.weights(bin_size)
    _, points, cells = weights.shape
    rows = weights.transpose(1, 0, 2).reshape(-1, cells)
    lines = builder.node("MatMul", builder.constant("rows", rows), maps)
    lines = builder.node("Reshape", lines, _shape(builder, 0, 0, -1, cells))
    columns = weights.reshape(-1, cells).T
    sums = builder.node("MatMul", lines, builder.constant("columns", columns))
    sums = builder.node("Reshape", sums, _shape(builder, 0, 0, points, WIDTH, points))
    turned = builder.node("Transpose", _as_bytes(builder, sums, bin_size), perm=[0, 1, 2, 4, 3])
    return builder.node("Reshape", turned, _shape(builder, 0, 0, points * points, WIDTH))


def _as_bytes(builder: GraphBuilder, histograms: str, bin_size: int) -> str:
    """Normalise, clip and square-root histograms float32 [B, c, points, 128, points]; as uint8."""
    length = builder.node("Sqrt", _total(builder, builder.node("Mul", histograms, histograms)))
    is_flat = builder.node("Less", length, _number(builder, _SILENCE * bin_size**2))
    length = builder.node("Where", is_flat, _number(builder, np.inf), length)
    unit = builder.node("Div", histograms, length)
    # Least-squares weights may be negative.
    clipped = builder.node("Clip", unit, _number(builder, 0), _number(builder, _LARGEST))
    total = builder.node("Max", _total(builder, clipped), _number(builder, _TINY))
    root = builder.node("Sqrt", builder.node("Div", clipped, total))
    # QuantizeLinear rounds and saturates.
    step = builder.constant("step", np.array(1 / STEPS_PER_UNIT, np.float32))
    return builder.node(
        "QuantizeLinear", root, step, builder.constant("zero", np.array(0, np.uint8))
    )


def _total(builder: GraphBuilder, histograms: str) -> str:
    return builder.node("ReduceSum", histograms, _shape(builder, 3))


def _number(builder: GraphBuilder, value: float) -> str:
    return builder.constant("number", np.array(value, np.float32))


def _shape(builder: GraphBuilder, *values: int) -> str:
    return builder.constant("shape", np.array(values, np.int64))
