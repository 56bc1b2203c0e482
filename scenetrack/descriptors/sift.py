"""Dense SIFT: handcrafted descriptors of a regular grid at several scales, as an ONNX graph.

D. G. Lowe, "Distinctive image features from scale-invariant keypoints", 2004, section 6, without
rotation; square-rooted as in Arandjelovic and Zisserman, "Three things everyone should know to
improve object retrieval", 2012, section 3.

The weight of a pixel in a spatial bin, triangle times Gaussian window, is a product of one factor
of its row and one of its column. So the histograms of all grid points are two matrix products of
the orientation maps, and no key point is ever visited. Where bins are large enough, the maps are
summed up over squares of pixels first, which makes a quarter of the work.
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
# A descriptor's values as bytes: those of a root of shares are hardly ever above half.
STEPS_PER_UNIT = 512
# No value of a descriptor of length 1 is larger: Lowe, section 6.1.
_LARGEST = 0.2
# The standard deviation of the Gaussian window is half the descriptor's width (section 6.1).
_WINDOW_BINS = BINS / 2
# Where all bins are at least as large, in pixels, pairs of pixels are summed up before they are
# weighted: a quarter of the products.
_POOLED_BIN = 4
# Smaller weights are 0. Those of least squares fall so fast that the products would meet numbers
# below the normal ones, on which processors take up to a hundred times as long.
_NEGLIGIBLE = 1e-6
# A histogram shorter than this, in grey levels a squared pixel of a bin, holds nothing but the
# rounding of a flat patch; an edge of one grey level gives a hundred times as much.
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
    """Where the descriptors lie and what they are made of.

    Attributes:
        image_size: side S of the square image in pixels.
        step: pixels between neighbouring grid points.
        bin_sizes: side of a spatial bin in pixels, one for each scale; a descriptor spans 4 bins.
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
        """Values of a descriptor."""
        return WIDTH * len(self.mixing)

    @property
    def mixing(self) -> NDArray[np.float32]:
        """Weights of R, G and B in each channel: float32 [channels, 3]."""
        return _GREY if self.colour == "grey" else _OPPONENT

    def centres(self, bin_size: int) -> NDArray[np.int64]:
        """Of the grid points along one side, in pixels; the margins are equal but for a pixel."""
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
        """Pixels along a side that are summed up before they are weighted: 1 or 2."""
        return 2 if min(self.bin_sizes) >= _POOLED_BIN else 1

    @property
    def _pixels(self) -> NDArray[np.int64]:
        """Of a line, those that have a gradient, in groups to sum up: [cells, pace]."""
        # Of an odd number of pixels the last has none: a group is completed by it.
        return np.arange(1, self.image_size - 1 + self.image_size % 2).reshape(-1, self.pace)

    def pixel_weights(self, bin_size: int) -> NDArray[np.float64]:
        """Of each pixel of a line in the bins of each grid point: float64 [4, points, S]."""
        offsets = np.arange(self.image_size) - self.centres(bin_size)[:, None]
        distances = offsets / bin_size
        window = np.exp(-(distances**2) / (2 * _WINDOW_BINS**2))
        bins = np.arange(BINS) - (BINS - 1) / 2
        triangles = np.maximum(0, 1 - np.abs(distances - bins[:, None, None]))
        return np.asarray(triangles * window)

    def weights(self, bin_size: int) -> NDArray[np.float32]:
        """Of each sum of ``pace`` pixels of a line, likewise: float32 [4, points, cells].

        Those whose histograms are nearest to those of ``pixel_weights``, by least squares, where
        pixels correlate as exp(-distance). At bins of 4 px the mean weights of each sum would
        take descriptors twice as far from those of single pixels.
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
        """What blurs a line of pixels, and what blurs and differentiates it.

        float32 [cells, pace, S] each: a row gives a pixel. Those outside the image mirror those
        inside.
        """
        size = self.image_size
        # A line mirrors no farther than its own length.
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
    """``images`` uint8 [N, S, S, 3] to ``descriptors`` uint8 [N, n, D], 512 steps to the unit.

    Args:
        grid: geometry and colour.
        metadata: stored in the graph, with the geometry.
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
    # processor's cache, the faster: a batch of 12 takes a third more an image than a batch of 1.
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
    """Rightward and downward differences of the blurred planes [B, c, S, S].

    [B, c, cells, pace * pace, cells]: the pixels that will be summed up lie along one axis.
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
    """Parts of the gradients along the 8 directions, summed up: [B, c, cells, 8 cells].

    Direction k points to k * 45 degrees, y downwards. A gradient is the sum of two vectors along
    the directions beside it: along the axis its larger side less the smaller one, along the
    diagonal the smaller one times the root of 2. Lowe shares its length in proportion to the angle
    instead. The lengths of the two exceed that by 0 to 8% together, which hardly changes a
    descriptor (cosines above 0.9999) and needs neither angles nor roots.
    """
    left, up = builder.node("Neg", right), builder.node("Neg", down)
    wide, tall = builder.node("Abs", right), builder.node("Abs", down)
    root, axis, maps = _number(builder, np.sqrt(2)), _shape(builder, 3), []
    sides = (right, tall, down), (down, wide, left), (left, tall, up), (up, wide, right)
    for side, other, following in sides:
        smaller = builder.node("Min", side, following)
        for part in (builder.node("Sub", side, other), builder.node("Mul", smaller, root)):
            maps.append(builder.node("ReduceSum", builder.node("Relu", part), axis))
    joined = builder.node("Concat", *maps, axis=3)
    return builder.node("Reshape", joined, _shape(builder, 0, 0, 0, -1))


def _descriptors(builder: GraphBuilder, maps: str, grid: SiftGrid, bin_size: int) -> str:
    """Orientation maps [B, c, cells, 8 cells] to uint8 [B, points, 128 c].

    The 128 are row of bins, direction, column of bins.
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
    """Normalised, clipped and square-rooted histograms float32 [B, c, points, 128, points]."""
    length = builder.node("Sqrt", _total(builder, builder.node("Mul", histograms, histograms)))
    is_flat = builder.node("Less", length, _number(builder, _SILENCE * bin_size**2))
    length = builder.node("Where", is_flat, _number(builder, np.inf), length)
    unit = builder.node("Div", histograms, length)
    # Weights by least squares may be below 0.
    clipped = builder.node("Clip", unit, _number(builder, 0), _number(builder, _LARGEST))
    total = builder.node("Max", _total(builder, clipped), _number(builder, _TINY))
    root = builder.node("Sqrt", builder.node("Div", clipped, total))
    # Rounds and saturates.
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
