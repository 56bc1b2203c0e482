"""A network drawn layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyBboxPatch

from scenetrack.figures.style import BLUE, DPI, GREEN, GREY, ORANGE, RED, heading, shortened, to_png
from scenetrack.records import Figure

# Kinds of layers by what they do, as drawn by topology().
_FAMILIES = (
    (("Dense", "Conv"), BLUE),
    (("Norm", "Whiten", "Contrast", "Rescal"), ORANGE),
    (("Activation", "ReLU", "Softmax"), GREEN),
    (("Dropout", "Noise"), RED),
)
_LAYERS_PER_COLUMN = 16


class LayerRow(NamedTuple):
    """One layer of a drawn network.

    Attributes:
        name, kind: as in the network.
        shape: of the output, batch axis first, None for any length.
        parameters: how many.
        sources: names of the layers whose outputs it takes; none for an input.
    """

    name: str
    kind: str
    shape: Sequence[int | None]
    parameters: int
    sources: Sequence[str]


def draw_topology(
    layers: Sequence[LayerRow],
    *,
    title: str = "",
    name: str = "figures/topology.png",
) -> Figure:
    """Draw the network as boxes from top to bottom, long ones in several columns.

    A layer that takes anything but the output of the one before says what it takes.

    Args:
        layers: in an order in which each comes after its sources.
        title: above the parameter total.
        name: artifact path of the figure.
    """
    columns = math.ceil(len(layers) / _LAYERS_PER_COLUMN)
    rows = math.ceil(len(layers) / columns)
    canvas = Canvas(figsize=(6.2 * columns, 0.72 * rows + 0.8), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    axes.set(xlim=(0, columns), ylim=(rows, -0.1))
    axes.axis("off")
    for index, layer in enumerate(layers):
        column, row = divmod(index, rows)
        _layer_box(axes, column, row, layer)
        before = [layers[index - 1].name] if index else []
        if before and before[0] in layer.sources:
            _flow_arrow(axes, *divmod(index - 1, rows), turns=row == 0)
        if list(layer.sources) != before:
            _name_sources(axes, column, row, layer.sources)
    total = f"{sum(layer.parameters for layer in layers):,} parameters in {len(layers)} layers"
    heading(axes, f"{title}: {total}" if title else total)
    return to_png(canvas, name)


def _layer_box(axes: Axes, column: int, row: int, layer: LayerRow) -> None:
    name, kind, shape, parameters, _ = layer
    colour = next(
        (colour for words, colour in _FAMILIES if any(word in kind for word in words)), GREY
    )
    left, width = column + 0.03, 0.94
    style = "round,pad=0,rounding_size=0.01"
    axes.add_patch(
        FancyBboxPatch(
            (left, row + 0.06),
            width,
            0.66,
            boxstyle=style,
            mutation_aspect=8,
            lw=1.2,
            edgecolor=colour,
            facecolor=to_rgba(colour, 0.12),
        )
    )
    right = left + width - 0.02
    axes.text(left + 0.02, row + 0.27, shortened(name, 30), fontweight="bold", va="center")
    axes.text(left + 0.02, row + 0.53, shortened(kind, 34), color=GREY, va="center", fontsize=9)
    size = " x ".join("any" if n is None else str(n) for n in shape[1:]) or "scalar"
    axes.text(right, row + 0.27, size, ha="right", va="center")
    count = f"{parameters:,} parameters" if parameters else "no parameters"
    axes.text(right, row + 0.53, count, color=GREY, ha="right", va="center", fontsize=9)


def _flow_arrow(axes: Axes, column: int, row: int, *, turns: bool) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    if turns:
        axes.annotate("", (column + 1.03, 0.39), (column + 0.97, row + 0.39), arrowprops=style)
    else:
        axes.annotate("", (column + 0.5, row + 1.06), (column + 0.5, row + 0.72), arrowprops=style)


def _name_sources(axes: Axes, column: int, row: int, sources: Sequence[str]) -> None:
    text = shortened(f"takes {', '.join(sources)}", 44)
    axes.text(column + 0.5, row + 0.39, text, ha="center", va="center", fontsize=8.5, color=BLUE)
