"""Pixel sources of an ONNX graph: linear functions of all patches of an image, in several forms.

A layer that is linear in the pixels of a patch (Dense, whitening, mean colour) can be computed on
every patch of an image without a float copy of the patches. All forms give the same rows in the
same order, image by image and each grid row by row; which form is the fastest depends on the
device and the geometry.

Patches share blocks of b x b pixels, b the greatest common divisor of patch size and stride: a
patch is P/b x P/b blocks, and the next patch begins s/b blocks further.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import TensorProto

from scenetrack.graphs.builder import GraphBuilder

CHANNELS = 3


@dataclass
class PixelSource(ABC):
    """Gives the pixels that a network takes, inside a graph.

    Args:
        builder: builder of the graph.
        images: name of a uint8 tensor [N, H, W, 3].
        shape: height, width and channels of what the network takes.
    """

    builder: GraphBuilder
    images: str
    shape: tuple[int, int, int]

    @abstractmethod
    def project(self, kernel: np.ndarray) -> str:
        """Add the product of each patch with ``kernel`` [h, w, 3, D]: float32 rows [B, D]."""

    @abstractmethod
    def patches(self) -> str | None:
        """Add the patches, uint8 [B, h, w, 3]; return None where this form never makes them."""

    @abstractmethod
    def sums(self) -> str:
        """Add the sums over each patch, float64 [B, 4]: of each channel, and of all squares."""

    @abstractmethod
    def restore(self, rows: str, shape: tuple[int, ...]) -> tuple[str, list[int | str]]:
        """Add rows [B, *shape] in the shape of the output; return them and that shape."""

    def constant(self, name: str, *values: int) -> str:
        """Add int64 ``values`` as a constant."""
        return self.builder.constant(name, np.array(values, np.int64))

    def to_float(self, tensor: str) -> str:
        """Add a cast to float32."""
        return self.builder.node("Cast", tensor, to=TensorProto.FLOAT)

    def with_squares(self, images: str) -> str:
        """Add float64 [..., 4] of uint8 [..., 3]: the channels and the sum of their squares.

        In float64 every sum over an image is exact: variances of nearly flat patches are small
        differences of large sums.
        """
        builder = self.builder
        values = builder.node("Cast", images, to=TensorProto.DOUBLE)
        squares = builder.node(
            "ReduceSum", builder.node("Mul", values, values), self.constant("channel", -1)
        )
        return builder.node("Concat", values, squares, axis=-1)


@dataclass
class WholeImages(PixelSource):
    """Source of a network that takes whole images: B = N."""

    def project(self, kernel: np.ndarray) -> str:
        flat = self.builder.node("Flatten", self.images, axis=1)
        return _product(self, flat, kernel.reshape(-1, kernel.shape[-1]))

    def patches(self) -> str | None:
        return self.images

    def sums(self) -> str:
        values = self.with_squares(self.images)
        return self.builder.node("ReduceSum", values, self.constant("axes", 1, 2), keepdims=0)

    def restore(self, rows: str, shape: tuple[int, ...]) -> tuple[str, list[int | str]]:
        return rows, ["batch", *shape]


@dataclass
class GridSource(PixelSource, ABC):
    """Source of all patches of a grid: B = N * grid_h * grid_w, for images of any size.

    Args:
        shape: (P, P, 3).
        stride: pixels between neighbouring patches.
    """

    stride: int
    _sums: str = field(default="", init=False)

    @property
    def side(self) -> int:
        """Side P of a patch in pixels."""
        return self.shape[0]

    @property
    def block(self) -> int:
        """Side b of the blocks in pixels."""
        return math.gcd(self.side, self.stride)

    @cached_property
    def grid(self) -> tuple[str, str]:
        """Number of patches down and across, int64 [1] each: (length - P) // s + 1."""
        builder = self.builder
        counts = []
        for axis in (1, 2):
            length = builder.node("Shape", self.images, start=axis, end=axis + 1)
            room = builder.node("Sub", length, self.constant("side", self.side))
            steps = builder.node("Div", room, self.constant("stride", self.stride))
            counts.append(builder.node("Add", steps, self.constant("one", 1)))
        return counts[0], counts[1]

    def sums(self) -> str:
        if not self._sums:
            values = self.with_squares(self.images)
            for axis in (1, 2):
                values = self._sums_along(values, axis)
            self._sums = self.builder.node("Reshape", values, self.constant("rows", -1, 4))
        return self._sums

    def restore(self, rows: str, shape: tuple[int, ...]) -> tuple[str, list[int | str]]:
        builder = self.builder
        count = builder.node("Shape", self.images, start=0, end=1)
        target = builder.node("Concat", count, *self.grid, self.constant("shape", *shape), axis=0)
        return builder.node("Reshape", rows, target), ["batch", "grid_h", "grid_w", *shape]

    def blocks(self) -> tuple[str, str, str]:
        """Add the image as blocks, uint8 [N, H/b, b, W/b, b * 3], cropped; also H/b and W/b."""
        builder, block = self.builder, self.block
        size = self.constant("block", block)
        counts = [
            builder.node("Div", builder.node("Shape", self.images, start=axis, end=axis + 1), size)
            for axis in (1, 2)
        ]
        ends = builder.node(
            "Concat", *(builder.node("Mul", count, size) for count in counts), axis=0
        )
        cropped = builder.node(
            "Slice", self.images, self.constant("from", 0, 0), ends, self.constant("axes", 1, 2)
        )
        keep, row = self.constant("keep", 0), self.constant("row", block * CHANNELS)
        shape = builder.node("Concat", keep, counts[0], size, counts[1], row, axis=0)
        return builder.node("Reshape", cropped, shape), counts[0], counts[1]

    def _sums_along(self, values: str, axis: int) -> str:
        """Add the sums over the grid's windows along one axis, as differences of running sums."""
        builder = self.builder
        running = builder.node("CumSum", values, self.constant("axis", axis))
        before = [0, 0, 0, 0]
        before[axis] = 1
        padded = builder.node("Pad", running, self.constant("pads", *before, 0, 0, 0, 0))
        axes, step = self.constant("axis", axis), self.constant("stride", self.stride)
        # The last window begins where the grid's last patch does.
        last = builder.node(
            "Mul", builder.node("Sub", self.grid[axis - 1], self.constant("one", 1)), step
        )
        windows = []
        for start in (0, self.side):
            end = builder.node("Add", last, self.constant("end", start + 1))
            windows.append(
                builder.node("Slice", padded, self.constant("start", start), end, axes, step)
            )
        return builder.node("Sub", windows[1], windows[0])


@dataclass
class BatchedPatches(GridSource):
    """Copies every patch as uint8 and multiplies it as a row of one matrix (im2col)."""

    def project(self, kernel: np.ndarray) -> str:
        count, block = self.side // self.block, self.block
        ordered = kernel.reshape(count, block, count, block, CHANNELS, -1)
        ordered = ordered.transpose(2, 0, 1, 3, 4, 5)  # as the columns of the rows below
        return _product(self, self._rows, ordered.reshape(-1, kernel.shape[-1]))

    def patches(self) -> str | None:
        builder, count, block = self.builder, self.side // self.block, self.block
        split = self.constant("split", -1, count, count, block, block, CHANNELS)
        parts = builder.node("Reshape", self._rows, split)
        parts = builder.node("Transpose", parts, perm=[0, 2, 3, 1, 4, 5])
        shape = self.constant("patch", -1, self.side, self.side, CHANNELS)
        return builder.node("Reshape", parts, shape)

    @cached_property
    def _rows(self) -> str:
        """Patches uint8 [B, 3 P^2], ordered (block column, block row, y, x, channel).

        Rows of blocks are gathered first, so that a patch is made of P/b long runs of bytes.
        """
        builder, count = self.builder, self.side // self.block
        blocks, _, across = self.blocks()
        tall = builder.node("Gather", blocks, self._block_indices(0), axis=1)
        # N x grid_h x (P/b x b) x W/b x 3b -> N x grid_h x W/b x (P/b x b x 3b)
        down, keep = self.grid[0], self.constant("keep", 0)
        rows = self.constant("rows", self.side)
        width = self.constant("width", self.block * CHANNELS)
        merged = builder.node("Concat", keep, down, rows, across, width, axis=0)
        tall = builder.node("Reshape", tall, merged)
        tall = builder.node("Transpose", tall, perm=[0, 1, 3, 2, 4])
        run = self.constant("run", self.side * self.block * CHANNELS)
        tall = builder.node(
            "Reshape", tall, builder.node("Concat", keep, down, across, run, axis=0)
        )
        patches = builder.node("Gather", tall, self._block_indices(1), axis=2)
        size = count * self.side * self.block * CHANNELS
        return builder.node("Reshape", patches, self.constant("flat", -1, size))

    def _block_indices(self, axis: int) -> str:
        """Add the indices of the blocks of each patch along an axis: int64 [grid, P/b]."""
        builder = self.builder
        zero, one = (builder.constant("bound", np.array(v, np.int64)) for v in (0, 1))
        count = builder.node("Squeeze", self.grid[axis])
        first = builder.node(
            "Mul",
            builder.node("Range", zero, count, one),
            self.constant("step", self.stride // self.block),
        )
        first = builder.node("Unsqueeze", first, self.constant("last", 1))
        within = builder.constant("within", np.arange(self.side // self.block, dtype=np.int64))
        return builder.node("Add", first, within)


@dataclass
class StridedConv(GridSource):
    """Convolves with a kernel of the patch's size: no patch is ever copied."""

    def project(self, kernel: np.ndarray) -> str:
        planes = self.builder.node("Transpose", self.images, perm=[0, 3, 1, 2])
        weights = kernel.transpose(3, 2, 0, 1)
        return self.convolve(planes, weights, self.stride)

    def patches(self) -> str | None:
        return None

    def convolve(self, planes: str, weights: np.ndarray, stride: int) -> str:
        """Add the rows [B, D] of a convolution of uint8 [N, C, h, w] with weights [D, C, k, k]."""
        builder = self.builder
        name = builder.constant("kernel", np.asarray(weights, np.float32))
        maps = builder.node("Conv", self.to_float(planes), name, strides=[stride, stride])
        rows = builder.node("Transpose", maps, perm=[0, 2, 3, 1])
        return builder.node("Reshape", rows, self.constant("rows", -1, len(weights)))


@dataclass
class SpaceToDepth(StridedConv):
    """Makes channels of blocks: a small dense kernel instead of a large one with a large stride."""

    def project(self, kernel: np.ndarray) -> str:
        builder, block, count = self.builder, self.block, self.side // self.block
        blocks, down, across = self.blocks()
        planes = builder.node("Transpose", blocks, perm=[0, 2, 4, 1, 3])
        keep, depth = self.constant("keep", 0), self.constant("depth", block**2 * CHANNELS)
        planes = builder.node(
            "Reshape", planes, builder.node("Concat", keep, depth, down, across, axis=0)
        )
        weights = kernel.reshape(count, block, count, block, CHANNELS, -1)
        weights = weights.transpose(5, 1, 3, 4, 0, 2).reshape(-1, block**2 * CHANNELS, count, count)
        return self.convolve(planes, weights, self.stride // block)


def _product(source: PixelSource, rows: str, kernel: np.ndarray) -> str:
    name = source.builder.constant("kernel", np.asarray(kernel, np.float32))
    return source.builder.node("MatMul", source.to_float(rows), name)
