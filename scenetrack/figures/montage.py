"""Images side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scenetrack.figures.style import DPI, fit, to_png
from scenetrack.records import Figure

_CELL = 1.5  # inches, the width of an image in a montage


def draw_montage(
    images: np.ndarray,
    titles: Sequence[str],
    columns: int,
    *,
    title: str = "",
    name: str = "figures/montage.png",
) -> Figure:
    """Draw images in rows of ``columns``, each under its title.

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
