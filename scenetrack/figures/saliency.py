"""A saliency map over an image: what speaks for its predicted class."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure as Canvas

from scenetrack.figures.style import DPI, GREY, fit, heading, to_png
from scenetrack.records import Figure

_HEIGHT = 3.6  # inches of the image
_NARROWEST, _WIDEST = 0.6, 1.8  # width to height of an image that is shown as it is
_GAP, _BAR, _TITLE, _MARGIN = 0.15, 1.2, 0.45, 0.1
_STRONGEST = 0.8  # opacity, which leaves the image visible under the colour
_PERCENTILE = 99.5
# Without the ends of the map, which are so dark that they hide the image.
_COLOURS = ListedColormap(colormaps["RdBu_r"](np.linspace(0.08, 0.92, 256)))


def evidence_map(
    image: np.ndarray, evidence: np.ndarray, label: str, probability: float, unit: str, *, name: str
) -> Figure:
    """Draw an image, and it in grey under the evidence: red speaks for the class, blue against.

    The scale is this image's own: it ends at the 99.5th percentile of the absolute values.

    Args:
        image: uint8 [H, W, 3], of any size.
        evidence: float [S, S] over the whole image, in units of the class's score, positive where
            a place speaks for the class, NaN where nothing is known.
        label: the class.
        probability: of the class, 0 to 1.
        unit: what a value of the evidence is, in a few words.
        name: artifact path of the figure.
    """
    height, width = image.shape[:2]
    wide = _HEIGHT * float(np.clip(width / height, _NARROWEST, _WIDEST))
    canvas = Canvas(figsize=(2 * wide + _GAP + _BAR, _HEIGHT + _TITLE), dpi=DPI)
    whole, over, side = (
        _axes(canvas, *place)
        for place in ((0, wide), (wide + _GAP, wide), (2 * (wide + _GAP), _BAR / 7))
    )
    limit = _limit(evidence)
    scale = Normalize(-limit, limit)
    _show(whole, image)
    _show(over, _faded(image))
    over.imshow(
        _coloured(evidence, scale),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
        aspect="auto",
    )
    _name(whole, label, f"  {probability:.1%}", wide)
    heading(over, "What spoke for it")
    bar = canvas.colorbar(ScalarMappable(scale, _COLOURS), cax=side)
    bar.outline.set_visible(False)
    bar.set_label(unit, fontsize=8.5, color=GREY)
    side.tick_params(labelsize=8, length=2)
    side.yaxis.set_major_formatter("{x:.2g}")
    return to_png(canvas, name)


def _name(axes: Axes, label: str, share: str, width: float) -> None:
    """Title a panel ``width`` inches wide; of a long label the end is cut, never the share."""
    title = heading(axes, share)
    taken = title.get_window_extent().width / DPI
    title.set_text(label)
    fit(title, width - taken)
    title.set_text(title.get_text() + share)


def _axes(canvas: Canvas, left: float, width: float) -> Axes:
    """Place a panel as high as the images, ``left`` inches from the first one's edge."""
    across, up = canvas.get_size_inches()
    return canvas.add_axes(((left + _MARGIN) / across, _MARGIN / up, width / across, _HEIGHT / up))


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, aspect="auto")
    axes.axis("off")


def _limit(evidence: np.ndarray) -> float:
    """Return the end of the colour scale: positive also for evidence that is zero or unknown."""
    known = np.abs(evidence[np.isfinite(evidence)])
    return float(np.percentile(known, _PERCENTILE)) or 1.0 if known.size else 1.0


def _faded(image: np.ndarray) -> np.ndarray:
    """Fade the image to light grey, float [H, W, 3] in 0 to 1, so that colours stand out."""
    grey = image.mean(axis=2, keepdims=True) / 255
    return np.repeat(0.35 + 0.65 * grey, 3, axis=2)


def _coloured(evidence: np.ndarray, scale: Normalize) -> np.ndarray:
    """Return colours [S, S, 4] that are the more opaque the stronger the evidence."""
    known = np.nan_to_num(evidence)
    painted: np.ndarray = np.array(_COLOURS(scale(known)))
    painted[..., 3] = _STRONGEST * np.clip(np.abs(known) / scale.vmax, 0, 1) ** 0.7
    return painted
