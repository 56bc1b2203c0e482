"""Multi-scale graph: a dense patch network on the same image at several sizes.

A patch of 16 px of the image made half as large is a patch of 32 px of the image itself: one set
of weights describes an image's details and its larger parts alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from scenetrack.data.patches import PatchGrid
from scenetrack.export.resize import resize_in_graph
from scenetrack.graphs.builder import GraphBuilder


def at_scales(
    network: onnx.ModelProto, grids: Sequence[PatchGrid], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return a graph that applies the network to an image resized to several sizes.

    Args:
        network: dense, ``images`` uint8 [N, H, W, 3] to outputs [N, grid_h, grid_w, ...].
        grids: the grid of each size; the first size is the image's own.
        metadata: stored in the graph.

    Returns:
        A graph from ``images`` uint8 [N, S, S, 3] to the same outputs, float32 [N, n, D], with the
        positions of all grids one after the other.
    """
    builder = GraphBuilder(network.graph.name)
    size = max(grid.image_size for grid in grids)
    images = builder.input("images", np.uint8, ["batch", size, size, 3])
    parts: dict[str, list[str]] = {}
    for grid in grids:
        with builder.scope(f"size{grid.image_size}"):
            is_own = grid.image_size == size
            scaled = images if is_own else resize_in_graph(builder, images, grid.image_size)
            outputs = builder.include(network, {network.graph.input[0].name: scaled})
            for name, tensor in outputs.items():
                width = network_width(network, name)
                shape = builder.constant("rows", np.array([-1, grid.count, width], np.int64))
                parts.setdefault(name, []).append(builder.node("Reshape", tensor, shape))
    places = sum(grid.count for grid in grids)
    for name, tensors in parts.items():
        joined = builder.node("Concat", *tensors, axis=1)
        width = network_width(network, name)
        builder.output(name, joined, np.float32, ["batch", places, width])
    own = {item.key: item.value for item in network.metadata_props}
    return builder.build({**own, **metadata})


def network_width(network: onnx.ModelProto, name: str) -> int:
    """Return the number of values per position in the output ``name``."""
    (output,) = (item for item in network.graph.output if item.name == name)
    dims = output.type.tensor_type.shape.dim[3:]
    return int(np.prod([dim.dim_value for dim in dims]))


def positions(grids: Sequence[PatchGrid]) -> NDArray[np.float32]:
    """Return the centres (y, x) of all grids' patches relative to the image: float32 [n, 2]."""
    return np.concatenate([grid.centres for grid in grids])
