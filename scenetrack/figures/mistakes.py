"""The most confident mistakes of a method, with their images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas

from scenetrack.figures.style import DPI, RED, fit, to_png
from scenetrack.records import Figure

_LONGEST_NAME = 30
_COLUMNS = 4
# Inches: width of an image, its caption, what is left between images, the title.
_CELL, _CAPTION, _GAP, _HEAD = 1.45, 0.4, 0.12, 0.4


def draw_mistakes(
    images: np.ndarray,
    captions: Sequence[tuple[str, str, float]],
    title: str = "",
    *,
    name: str = "figures/mistakes.png",
) -> Figure:
    """Draw images in rows of four, each under its class and, in red, the class predicted for it.

    Args:
        images: uint8 [N, H, W, 3], N > 0.
        captions: N of true class, predicted class and its probability, in [0, 1].
        title: name of the method.
        name: artifact path of the figure.
    """
    rows = math.ceil(len(images) / _COLUMNS)
    cell = _CELL * images.shape[1] / images.shape[2] + _CAPTION
    width, height = _COLUMNS * (_CELL + _GAP) + _GAP, rows * (cell + _GAP) + _HEAD
    canvas = Canvas(figsize=(width, height), dpi=DPI)
    for index, (image, (true, predicted, probability)) in enumerate(
        zip(images, captions, strict=True)
    ):
        row, column = divmod(index, _COLUMNS)
        left, top = _GAP + column * (_CELL + _GAP), height - _HEAD - row * (cell + _GAP)
        place = (left / width, (top - cell) / height, _CELL / width, (cell - _CAPTION) / height)
        axes = canvas.add_axes(place)
        axes.imshow(image, aspect="auto")
        axes.axis("off")
        lines = ((true, "black", 0.22), (f"{probability:.1%}  {predicted}", RED, 0.05))
        for text, colour, above in lines:
            up = (top - _CAPTION + above) / height
            fit(canvas.text(left / width, up, text, fontsize=8.5, color=colour), _CELL)
    style = {"fontsize": 12, "fontweight": "bold", "va": "center"}
    heading = "Most confident mistakes" + (f": {title}" if title else "")
    line = canvas.text(_GAP / width, 1 - 0.5 * _HEAD / height, heading, style)
    fit(line, width - 2 * _GAP)
    return to_png(canvas, name)
