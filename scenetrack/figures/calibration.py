"""A reliability diagram: confidence against accuracy."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scenetrack.figures.style import BLUE, DPI, GREY, ORANGE, heading, plain, shortened, to_png
from scenetrack.records import Figure

_LONGEST_NAME = 30


def draw_reliability_diagram(
    counts: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    ece: float,
    title: str = "",
    *,
    name: str = "figures/reliability.png",
) -> Figure:
    """Draw the accuracy of predictions by confidence, and below how many there are of each.

    Args:
        counts: int [B], images in each of B bins of equal width from 0 to 1.
        confidence: float [B], mean probability of the predicted class, in [0, 1].
        accuracy: float [B], share of right predictions, in [0, 1].
        ece: expected calibration error, in [0, 1].
        title: name of the method.
        name: artifact path of the figure.
    """
    canvas = Canvas(figsize=(5.4, 6.2), dpi=DPI, layout="constrained")
    above, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    width = 1 / len(counts)
    middles = (np.arange(len(counts)) + 0.5) * width
    filled = counts > 0
    above.plot((0, 1), (0, 1), ":", color=GREY, lw=1.4, zorder=2.5, label="confidence = accuracy")
    above.bar(middles[filled], accuracy[filled], 0.92 * width, color="#9DBBD1", label="accuracy")
    above.plot(confidence[filled], accuracy[filled], "o", ms=4, color=ORANGE, zorder=3)
    above.vlines(
        confidence[filled],
        np.minimum(confidence, accuracy)[filled],
        np.maximum(confidence, accuracy)[filled],
        color=ORANGE,
        lw=2,
        label="gap to mean confidence",
    )
    above.set(ylim=(0, 1), ylabel="right predictions")
    above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    above.legend(frameon=False, loc="upper left", fontsize=9)
    verdict = f"calibration error {ece:.3f}"
    heading(above, f"{shortened(title, _LONGEST_NAME)}: {verdict}" if title else verdict)
    below.bar(middles, counts, 0.92 * width, color=BLUE)
    below.set(xlim=(0, 1), xlabel="confidence (probability of the predicted class)")
    below.set_ylabel("images")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (above, below):
        plain(axes)
    return to_png(canvas, name)
