"""Dense SIFT: handcrafted descriptors of a regular grid at several scales, as an ONNX graph.

D. G. Lowe, "Distinctive image features from scale-invariant keypoints", 2004, section 6, without
rotation; square-rooted as in Arandjelovic and Zisserman, "Three things everyone should know to
improve object retrieval", 2012, section 3.

The weight of a pixel in a spatial bin, triangle times Gaussian window, is a product of one factor
of its row and one of its column. So the histograms of all grid points are two matrix products of
the orientation maps, and no key point is ever visited.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from scenetrack.errors import ConfigError
from scenetrack.graph import GraphBuilder

BINS, ORIENTATIONS = 4, 8
WIDTH = BINS * BINS * ORIENTATIONS
# A descriptor's values as bytes: those of a root of shares are hardly ever above half.
STEPS_PER_UNIT = 512
# No value of a descriptor of length 1 is larger: Lowe, section 6.1.
_LARGEST = 0.2
# The standard deviation of the Gaussian window is half the descriptor's width (section 6.1).
_WINDOW_BINS = BINS / 2
# Grid points of a line that are worked on together: the fewer, the fewer pixels have no weight in
# any of them; the more, the larger the products.
_POINTS_AT_ONCE = 14
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

    def weights(self, bin_size: int) -> NDArray[np.float32]:
        """Of each pixel of a line in the bins of each grid point: float32 [4, points, S]."""
        offsets = np.arange(self.image_size) - self.centres(bin_size)[:, None]
        distances = offsets / bin_size
        window = np.exp(-(distances**2) / (2 * _WINDOW_BINS**2))
        bins = np.arange(BINS) - (BINS - 1) / 2
        triangles = np.maximum(0, 1 - np.abs(distances - bins[:, None, None]))
        return np.asarray(triangles * window, np.float32)

    def filters(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What blurs a line of pixels, and what blurs and differentiates it: float32 [S, S].

        Row i gives pixel i; pixels outside mirror those inside, and the outermost get 0.
        """
        size = self.image_size
        radius = int(np.ceil(4 * self.smoothing))
        places = np.arange(-radius, radius + 1)
        kernel = np.exp(-(places**2) / (2 * max(self.smoothing, _TINY) ** 2))
        reach = np.arange(size)[:, None] + places
        mirrored = np.pad(np.arange(size), size - 1, mode="reflect")[reach + size - 1]
        blur = np.zeros((size, size))
        np.add.at(blur, (np.arange(size)[:, None], mirrored), kernel / kernel.sum())
        slope = np.zeros((size, size))
        slope[1:-1] = blur[2:] - blur[:-2]
        blur[[0, -1]] = 0
        return blur.astype(np.float32), slope.astype(np.float32)


def sift_graph(grid: SiftGrid, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """``images`` uint8 [N, S, S, 3] to ``descriptors`` uint8 [N, n, D], 512 steps to the unit.

    Args:
        grid: geometry and colour.
        metadata: stored in the graph, with the geometry.
    """
    builder = GraphBuilder("dense_sift")
    size, channels = grid.image_size, len(grid.mixing)
    images = builder.input("images", np.uint8, ["batch", size, size, 3])
    values = builder.node("Cast", images, to=TensorProto.FLOAT)
    mixed = builder.node("MatMul", values, builder.constant("mixing", grid.mixing.T))
    planes = builder.node("Transpose", mixed, perm=[0, 3, 1, 2])
    maps = _orientation_maps(builder, *_gradients(builder, planes, grid))
    scales = []
    for bin_size in grid.bin_sizes:
        with builder.scope(f"bin{bin_size}"):
            descriptors = _descriptors(builder, maps, grid, bin_size)
            shape = _shape(builder, 0, 0, len(grid.centres(bin_size)) ** 2, WIDTH)
            scales.append(builder.node("Reshape", descriptors, shape))
    joined = scales[0] if len(scales) == 1 else builder.node("Concat", *scales, axis=2)
    if channels > 1:
        joined = builder.node("Transpose", joined, perm=[0, 2, 1, 3])
    shape = _shape(builder, -1, len(grid.positions), grid.width)
    descriptors = builder.node("Reshape", joined, shape)
    builder.output("descriptors", descriptors, np.uint8, ["batch", len(grid.positions), grid.width])
    workspace = 4 * channels * (40 * size**2 + 4 * len(grid.positions) * WIDTH)
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
    """Rightward and downward differences of the blurred planes [B, c, S, S]: [B, c, S, 1, S]."""
    blur, slope = grid.filters()
    shape = _shape(builder, 0, 0, grid.image_size, 1, grid.image_size)
    gradients = []
    for columns, rows in ((slope, blur), (blur, slope)):
        lines = builder.node("MatMul", planes, builder.constant("columns", columns.T))
        both = builder.node("MatMul", builder.constant("rows", rows), lines)
        gradients.append(builder.node("Reshape", both, shape))
    return gradients[0], gradients[1]


def _orientation_maps(builder: GraphBuilder, right: str, down: str) -> str:
    """Gradients' lengths shared between the two nearest of 8 directions: [B, c, S, 8 S].

    Direction k points to k * 45 degrees, y downwards. Between an axis and the diagonal beside it
    the share grows with the angle, which is the arc tangent of the smaller over the larger side:
    no quadrant has to be told apart.
    """
    wide, tall = builder.node("Abs", right), builder.node("Abs", down)
    larger, smaller = builder.node("Max", wide, tall), builder.node("Min", wide, tall)
    squares = [builder.node("Mul", side, side) for side in (right, down)]
    length = builder.node("Sqrt", builder.node("Add", *squares))
    ratio = builder.node("Div", smaller, builder.node("Max", larger, _number(builder, _TINY)))
    share = builder.node("Mul", builder.node("Atan", ratio), _number(builder, 4 / np.pi))
    diagonal = builder.node("Mul", length, share)
    axis = builder.node("Sub", length, diagonal)
    is_wide = builder.node("GreaterOrEqual", wide, tall)
    of_width = builder.node("Mul", axis, builder.node("Cast", is_wide, to=TensorProto.FLOAT))
    of_height = builder.node("Sub", axis, of_width)
    to_right, to_bottom = builder.node("Sign", right), builder.node("Sign", down)
    east, west = _by_sign(builder, of_width, to_right)
    south, north = _by_sign(builder, of_height, to_bottom)
    eastern, western = _by_sign(builder, diagonal, to_right)
    southeast, northeast = _by_sign(builder, eastern, to_bottom)
    southwest, northwest = _by_sign(builder, western, to_bottom)
    around = (east, southeast, south, southwest, west, northwest, north, northeast)
    maps = builder.node("Concat", *around, axis=3)
    return builder.node("Reshape", maps, _shape(builder, 0, 0, 0, -1))


def _by_sign(builder: GraphBuilder, values: str, sign: str) -> tuple[str, str]:
    """Values of at least 0 where the sign is 1, and where it is -1; 0 elsewhere."""
    signed = builder.node("Mul", values, sign)
    above = builder.node("Relu", signed)
    return above, builder.node("Sub", above, signed)


def _descriptors(builder: GraphBuilder, maps: str, grid: SiftGrid, bin_size: int) -> str:
    """Orientation maps [B, c, S, 8 S] to uint8 [B, c, points, points, 128].

    The 128 are row of bins, direction, column of bins.
    """
    lines = []
    for first, weights in _strips(grid.weights(bin_size)):
        strip = _cut(builder, maps, first, weights.shape[2], axis=2)
        # Points before bins, so that the strips lie one after the other.
        rows = weights.transpose(1, 0, 2).reshape(-1, weights.shape[2])
        lines.append(builder.node("MatMul", builder.constant("rows", rows), strip))
    joined = builder.node("Concat", *lines, axis=2) if len(lines) > 1 else lines[0]
    joined = builder.node("Reshape", joined, _shape(builder, 0, 0, -1, grid.image_size))
    points, parts = len(grid.centres(bin_size)), []
    for first, weights in _strips(grid.weights(bin_size)):
        strip = _cut(builder, joined, first, weights.shape[2], axis=3)
        columns = weights.reshape(-1, weights.shape[2]).T
        sums = builder.node("MatMul", strip, builder.constant("columns", columns))
        shape = _shape(builder, 0, 0, points, WIDTH, weights.shape[1])
        part = _as_bytes(builder, builder.node("Reshape", sums, shape))
        parts.append(builder.node("Transpose", part, perm=[0, 1, 2, 4, 3]))
    return builder.node("Concat", *parts, axis=3) if len(parts) > 1 else parts[0]


def _strips(weights: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The weights [4, points, S] in parts: the first pixel that has any, and [4, few, pixels]."""
    points = weights.shape[1]
    for part in np.array_split(weights, max(1, round(points / _POINTS_AT_ONCE)), axis=1):
        used = np.flatnonzero(part.any(axis=(0, 1)))
        yield int(used[0]), part[..., used[0] : used[-1] + 1]


def _cut(builder: GraphBuilder, tensor: str, first: int, length: int, axis: int) -> str:
    cuts = [_shape(builder, value) for value in (first, first + length, axis)]
    return builder.node("Slice", tensor, *cuts)


def _as_bytes(builder: GraphBuilder, histograms: str) -> str:
    """Normalised, clipped and square-rooted histograms float32 [B, c, points, 128, points]."""
    axis, tiny = _shape(builder, 3), _number(builder, _TINY)
    length = builder.node("Max", builder.node("ReduceL2", histograms, axis), tiny)
    unit = builder.node("Div", histograms, length)
    clipped = builder.node("Clip", unit, "", _number(builder, _LARGEST))
    total = builder.node("Max", builder.node("ReduceSum", clipped, axis), tiny)
    root = builder.node("Sqrt", builder.node("Div", clipped, total))
    # Rounds and saturates.
    unit = builder.constant("step", np.array(1 / STEPS_PER_UNIT, np.float32))
    return builder.node(
        "QuantizeLinear", root, unit, builder.constant("zero", np.array(0, np.uint8))
    )


def _number(builder: GraphBuilder, value: float) -> str:
    return builder.constant("number", np.array(value, np.float32))


def _shape(builder: GraphBuilder, *values: int) -> str:
    return builder.constant("shape", np.array(values, np.int64))
