"""Test accuracies of methods with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from scenetrack.figures.style import BLUE, DPI, heading, plain, to_png, wrapped
from scenetrack.records import Figure

_LONGEST_NAME = 32


def draw_method_comparison(
    rows: Sequence[tuple[str, float, float, float]],
    title: str = "",
    *,
    name: str = "figures/comparison.png",
) -> Figure:
    """Draw methods as bars with their 95% intervals, best first.

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
