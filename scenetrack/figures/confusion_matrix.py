"""A confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from scenetrack.figures.style import DPI, heading, shortened, to_png
from scenetrack.records import Figure

# Confusion matrices: up to so many classes have their counts and every name written.
_COUNTED_CLASSES, _NAMED_CLASSES = 40, 80
_LONGEST_NAME = 32


def draw_confusion_matrix(
    confusion: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    *,
    name: str = "figures/confusion_matrix.png",
) -> Figure:
    """Draw the counts of images by true class (rows) and predicted class (columns).

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
