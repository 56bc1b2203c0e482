"""A layer's output for one image: vectors as strips, maps as images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.ticker import MaxNLocator

from scenetrack.errors import ScenetrackError
from scenetrack.figures.style import BLUE, DPI, GREY, ORANGE, plain, to_png
from scenetrack.records import Figure

_STRIP = 64
_MAPS = 16


def draw_activation_maps(
    values: np.ndarray,
    layer: str,
    image: np.ndarray | None = None,
    *,
    name: str = "figures/activations.png",
) -> Figure:
    """Draw one layer's output for one image, beside the image.

    Args:
        values: float [D], drawn as units in their order, distribution and strongest units;
            [T, D], drawn as a heat map of T descriptors; or [h, w, C], drawn as the maps of the
            channels with the largest mean magnitude.
        layer: its name.
        image: uint8 [H, W, 3], or None.
        name: artifact path of the figure.

    Raises:
        ScenetrackError: ``values`` has another number of axes.
    """
    panels = {1: _vector_panels, 2: _matrix_panel, 3: _map_panels}
    if values.ndim not in panels:
        raise ScenetrackError(
            f"a layer output of 1 to 3 axes for one image can be drawn. Received: {values.shape}"
        )
    width = 6.4 if values.ndim == 3 else 8.3
    canvas = Canvas(figsize=(width + 3.2 * (image is not None), 5.6), dpi=DPI)
    canvas.set_layout_engine("constrained")
    panel: SubplotSpec
    if image is None:
        panel = GridSpec(1, 1, figure=canvas)[0]
    else:
        grid = GridSpec(1, 2, figure=canvas, width_ratios=(3.2, width))
        axes = canvas.add_subplot(grid[0])
        axes.imshow(image)
        axes.axis("off")
        axes.set_title("input image", fontsize=10)
        panel = grid[1]
    panels[values.ndim](canvas, panel, values)
    shape = " x ".join(map(str, values.shape))
    canvas.suptitle(
        f"Output of {layer} [{shape}]: {values.min():.3g} to {values.max():.3g}, "
        f"{np.mean(values == 0):.0%} zeros",
        fontsize=12,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    return to_png(canvas, name)


def _vector_panels(canvas: Canvas, panel: SubplotSpec, values: np.ndarray) -> None:
    grid = panel.subgridspec(2, 2, height_ratios=(1.15, 1), hspace=0.1)
    strip = canvas.add_subplot(grid[0, :])
    width = min(_STRIP, len(values))
    cells = np.full(math.ceil(len(values) / width) * width, np.nan)
    cells[: len(values)] = values
    picture = strip.imshow(
        cells.reshape(-1, width), aspect="auto", interpolation="nearest", **_colours(values)
    )
    first = np.arange(0, len(cells), width)
    step = max(1, math.ceil(len(first) / 8))
    if len(first) > 1:
        strip.set_yticks(np.arange(len(first))[::step], first[::step])
        strip.set(xlabel="unit within the row", ylabel="first unit")
    else:
        strip.set(xlabel="unit", yticks=[])
    strip.set_title("all units in their order", fontsize=10)
    canvas.colorbar(picture, ax=strip, pad=0.01).outline.set_visible(False)
    spread = canvas.add_subplot(grid[1, 0])
    spread.hist(values, bins=min(40, max(8, len(values) // 8)), color=BLUE)
    spread.set(xlabel="output", ylabel="units")
    spread.yaxis.set_major_locator(MaxNLocator(integer=True))
    spread.set_title("distribution", fontsize=10)
    plain(spread)
    strongest = canvas.add_subplot(grid[1, 1])
    order = np.argsort(-np.abs(values), kind="stable")[:10]
    strongest.barh(np.arange(len(order)), values[order], color=ORANGE, height=0.7)
    strongest.axvline(0, color=GREY, lw=0.8)
    strongest.set_yticks(np.arange(len(order)), order)
    strongest.invert_yaxis()
    strongest.set(xlabel="output", ylabel="unit")
    strongest.set_title("strongest units", fontsize=10)
    plain(strongest)


def _matrix_panel(canvas: Canvas, panel: SubplotSpec, values: np.ndarray) -> None:
    axes = canvas.add_subplot(panel)
    picture = axes.imshow(values, aspect="auto", interpolation="nearest", **_colours(values))
    axes.set(xlabel="unit", ylabel="descriptor")
    canvas.colorbar(picture, ax=axes, pad=0.01).outline.set_visible(False)


def _map_panels(canvas: Canvas, panel: SubplotSpec, values: np.ndarray) -> None:
    order = np.argsort(-np.abs(values).mean(axis=(0, 1)), kind="stable")[:_MAPS]
    columns = math.ceil(math.sqrt(len(order)))
    grid = panel.subgridspec(math.ceil(len(order) / columns), columns, hspace=0.05, wspace=0.05)
    shown = []
    for place, channel in enumerate(order):
        axes = canvas.add_subplot(grid[divmod(place, columns)])
        picture = axes.imshow(values[:, :, channel], interpolation="nearest", **_colours(values))
        axes.axis("off")
        axes.set_title(f"channel {channel}", fontsize=8.5, pad=2)
        shown.append(axes)
    canvas.colorbar(picture, ax=shown, shrink=0.8, pad=0.01).outline.set_visible(False)


def _colours(values: np.ndarray) -> dict[str, Any]:
    """Return one scale for all panels: diverging around 0 where there are negative values."""
    reach = float(np.abs(values).max()) or 1.0
    if values.min() < 0:
        return {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": reach}
