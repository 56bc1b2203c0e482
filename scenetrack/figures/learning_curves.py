"""Loss and accuracy of a training by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scenetrack.figures.style import BLUE, DPI, GREY, RED, heading, plain, to_png
from scenetrack.records import Figure


def draw_learning_curves(
    history: Mapping[str, Sequence[float]],
    best_epoch: int | None = None,
    *,
    name: str = "figures/learning_curves.png",
) -> Figure:
    """Draw accuracy and loss over the epochs, training and validation, side by side.

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
