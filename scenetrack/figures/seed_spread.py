"""Accuracies of each method over several seeds, as dots around their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from scenetrack.figures.style import BLUE, DPI, ORANGE, heading, plain, shortened, to_png, wrapped
from scenetrack.records import Figure

_LONGEST_NAME = 32
_NARROWEST = 0.04  # of the axis of accuracies, lest tiny differences look large


def draw_seed_spread(
    accuracies: Mapping[str, Sequence[float]], title: str = "", *, name: str = "figures/seeds.png"
) -> Figure:
    """Draw methods, best first, as rows of dots, one for each seed, with mean and deviation.

    Args:
        accuracies: by method, test accuracies of two seeds or more, in [0, 1].
        title: above the rows.
        name: artifact path of the figure.
    """
    ordered = sorted(accuracies.items(), key=lambda item: -float(np.mean(item[1])))
    canvas = Canvas(figsize=(9, 1.4 + 0.46 * len(ordered)), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    for place, (_, values) in enumerate(ordered):
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
        axes.errorbar(
            mean, place, xerr=std, fmt="|", color=ORANGE, ms=16, mew=2.5, elinewidth=2.5, zorder=2
        )
        axes.plot(values, np.full(len(values), place), "o", ms=6, color=BLUE, alpha=0.6, zorder=3)
        text = f"{mean:.1%} ± {std:.1%}"
        axes.text(
            1.02, place, text, va="center", fontsize=9.5, transform=axes.get_yaxis_transform()
        )
    low, high = axes.get_xlim()
    widening = max(_NARROWEST - (high - low), 0) / 2
    axes.set_xlim(low - widening, high + widening)
    axes.set_yticks(range(len(ordered)), [wrapped(key, _LONGEST_NAME) for key, _ in ordered])
    axes.set(ylim=(len(ordered) - 0.4, -0.6), xlabel="test accuracy, mean and standard deviation")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    heading(axes, shortened(title, 2 * _LONGEST_NAME) or "What the seed changes")
    plain(axes)
    axes.tick_params(axis="y", length=0)
    return to_png(canvas, name)
