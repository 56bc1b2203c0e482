"""Pictures of results as PNG: drawn on matplotlib figures of their own, never on global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scenetrack.errors import ScenetrackError
from scenetrack.figures.network import LayerRow, topology
from scenetrack.figures.spread import seeds
from scenetrack.figures.style import (
    BLUE,
    DPI,
    GREY,
    ORANGE,
    RED,
    fit,
    heading,
    plain,
    shortened,
    to_png,
    wrapped,
)
from scenetrack.figures.trust import mistakes, reliability_diagram
from scenetrack.records import Figure

__all__ = [
    "LayerRow",
    "activations",
    "comparison",
    "confusion_matrix",
    "learning_curves",
    "mistakes",
    "montage",
    "reliability_diagram",
    "seeds",
    "topology",
]

_STRIP = 64
_MAPS = 16
_CELL = 1.5  # inches, the width of an image in a montage
# Confusion matrices: up to so many classes have their counts and every name written.
_COUNTED_CLASSES, _NAMED_CLASSES = 40, 80
_LONGEST_NAME = 32


def learning_curves(
    history: Mapping[str, Sequence[float]],
    best_epoch: int | None = None,
    *,
    name: str = "figures/learning_curves.png",
) -> Figure:
    """Accuracy and loss over the epochs, training and validation, side by side.

    Args:
        history: one value per epoch under ``train/accuracy``, ``train/loss`` and, with
            validation, ``val/accuracy`` and ``val/loss``.
        best_epoch: from 0, the epoch whose weights were kept; None marks the best one of the
            validation accuracy, or of the training accuracy where there is no validation.
        name: artifact path of the figure.
    """
    if best_epoch is None:
        judge = history.get("val/accuracy") or history["train/accuracy"]
        best_epoch, verb = int(np.argmax(judge)), "best"
    else:
        verb = "kept"
    canvas = Canvas(figsize=(10, 3.8), dpi=DPI, layout="constrained")
    for axes, quantity in zip(canvas.subplots(1, 2), ("accuracy", "loss"), strict=True):
        curves = (("train", "training", BLUE, "-"), ("val", "validation", RED, "--"))
        for split, label, colour, dashes in curves:
            values = history.get(f"{split}/{quantity}")
            if not values:
                continue
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) < 3 else None
            value = values[best_epoch]
            label += f", {value:.1%}" if quantity == "accuracy" else f", {value:.3f}"
            axes.plot(epochs, values, dashes, color=colour, lw=1.8, marker=marker, label=label)
            axes.plot(best_epoch + 1, values[best_epoch], "o", color=colour, ms=6)
        axes.axvline(best_epoch + 1, color=GREY, lw=0.9, ls=":")
        axes.set_xlabel("epoch")
        heading(axes, quantity.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _widen(axes, *((0.12, 1.0) if quantity == "accuracy" else (0.2, math.inf)))
        axes.legend(frameon=False, title=f"at the {verb} epoch, {best_epoch + 1}")
        plain(axes)
    canvas.axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return to_png(canvas, name)


def _widen(axes: Axes, height: float, most: float) -> None:
    """Make room where one epoch or a flat curve would be blown up: at least ``height`` high.

    There is nothing to show below 0 or above ``most``, but the room of half a line.
    """
    left, right = axes.get_xlim()
    middle = (left + right) / 2
    axes.set_xlim(min(left, middle - 0.9), max(right, middle + 0.9))
    low, high = axes.get_ylim()
    if high - low < height:
        edge = 0.04 * height
        low = max((low + high - height) / 2, -edge)
        low = min(low, most + edge - height)
        axes.set_ylim(low, low + height)


def confusion_matrix(
    confusion: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    *,
    name: str = "figures/confusion_matrix.png",
) -> Figure:
    """Counts of images by true class (rows) and predicted class (columns).

    Args:
        confusion: int [C, C]; a cell's colour is its share of the row. Above 40 classes its count
            is not written.
        class_names: C names; above 80 classes not every one is written.
        title: what the matrix is of; the accuracy is added.
        name: artifact path of the figure.
    """
    classes = len(class_names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = max(5.2, 3.0 + 0.52 * classes if classes <= 16 else 5.2 + 0.3 * classes)
    side = min(side, 5.2 + 0.3 * _COUNTED_CLASSES)
    text_size = 10 if classes <= 10 else 8.5
    canvas = Canvas(figsize=(side + 0.8, side), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= _COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[row, column] > 0.55 else "black"
            text = str(confusion[row, column])
            axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=text_size)
    _name_classes(axes, class_names, text_size)
    accuracy = np.trace(confusion) / max(confusion.sum(), 1)
    verdict = f"{accuracy:.1%} of {confusion.sum()} right"
    heading(axes, f"{title}: {verdict}" if title else verdict)
    bar = canvas.colorbar(picture, ax=axes, shrink=0.7, pad=0.02, label="share of the true class")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.outline.set_visible(False)
    # Long names leave the square of the matrix less than the canvas; the rest would stay blank.
    return to_png(canvas, name, cut=True)


def _name_classes(axes: Axes, class_names: Sequence[str], text_size: float) -> None:
    """Label rows and columns, and rule lines between them where there is room."""
    classes = len(class_names)
    ticks = range(0, classes, math.ceil(classes / _NAMED_CLASSES))
    labels = [shortened(class_names[k], _LONGEST_NAME) for k in ticks]
    axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=0, labelsize=text_size)
    if classes <= _COUNTED_CLASSES:
        between = np.arange(classes - 1) + 0.5
        axes.set_xticks(between, minor=True)
        axes.set_yticks(between, minor=True)
        axes.grid(which="minor", color="#DDDDDD", lw=0.6)
        axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def montage(
    images: np.ndarray,
    titles: Sequence[str],
    columns: int,
    *,
    title: str = "",
    name: str = "figures/montage.png",
) -> Figure:
    """Images in rows of ``columns``, each under its title.

    Args:
        images: uint8 [N, H, W, 3].
        titles: N texts, cut to the width of an image; empty ones take no space when all are.
        columns: images in a row.
        title: of the whole picture.
        name: artifact path of the figure.
    """
    rows = math.ceil(len(images) / columns)
    height, width = images.shape[1:3]
    room = 0.19 if any(titles) else 0.06
    canvas = Canvas(
        figsize=(_CELL * columns, (_CELL * height / width + room) * rows + 0.4 * bool(title)),
        dpi=DPI,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01),
    )
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, image, text in zip(panels, images, titles, strict=False):
        axes.imshow(image)
        fit(axes.set_title(text, fontsize=8.5, pad=2), 0.95 * _CELL)
    if title:
        canvas.suptitle(title, fontsize=12, fontweight="bold", x=0.02, ha="left")
    return to_png(canvas, name)


def comparison(
    rows: Sequence[tuple[str, float, float, float]],
    title: str = "",
    *,
    name: str = "figures/comparison.png",
) -> Figure:
    """Methods as bars with their 95% intervals, best first.

    Args:
        rows: name, accuracy, low and high of each method, in [0, 1], in any order.
        title: above the bars.
        name: artifact path of the figure.
    """
    ordered = sorted(rows, key=lambda row: -row[1])
    names = [wrapped(row[0], _LONGEST_NAME) for row in ordered]
    accuracy, low, high = np.array([row[1:] for row in ordered], dtype=float).T
    canvas = Canvas(figsize=(9, 1.3 + 0.46 * len(rows)), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    places = np.arange(len(rows))
    colours = [BLUE] + ["#9DBBD1"] * (len(rows) - 1)
    axes.barh(places, accuracy, height=0.66, color=colours)
    reach = np.maximum([accuracy - low, high - accuracy], 0)
    axes.errorbar(
        accuracy, places, xerr=reach, fmt="none", ecolor="#222222", elinewidth=1.4, capsize=4
    )
    for place, (_, value, bottom, top) in enumerate(ordered):
        text = f"{value:.1%}  ({bottom:.1%} to {top:.1%})"
        axes.text(
            1.02, place, text, va="center", fontsize=9.5, transform=axes.get_yaxis_transform()
        )
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="test accuracy, 95% interval")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    heading(axes, title or "Methods on the same test images")
    plain(axes)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return to_png(canvas, name)


def activations(
    values: np.ndarray,
    layer: str,
    image: np.ndarray | None = None,
    *,
    name: str = "figures/activations.png",
) -> Figure:
    """One layer's output for one image, beside the image.

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
    """One scale for all panels: diverging around 0 where there are negative values."""
    reach = float(np.abs(values).max()) or 1.0
    if values.min() < 0:
        return {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": reach}
