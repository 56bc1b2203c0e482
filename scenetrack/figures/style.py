"""What all figures share: colours, titles, grids, cut texts, and how a canvas becomes a PNG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from scenetrack.records import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#595959"
DPI = 110
_LONGEST_FITTED = 60  # letters


def shortened(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def wrapped(text: str, width: int, most: int = 2) -> str:
    """Wrap ``text`` in ``most`` lines of ``width`` characters; longer texts lose their middle.

    Both ends tell names apart: a run's name stands first, its method's and its id last.
    """
    shown, length = text, len(text)
    while len(lines := textwrap.wrap(shown, width)) > most:
        length -= 1
        shown = f"{text[: length // 2]}…{text[length // 2 - length + 1 :]}"
    return "\n".join(lines)


def fit(text: Text, width: float) -> None:
    """Cut what ``text`` shows where it is wider than ``width`` inches."""
    whole = text.get_text()
    length = min(len(whole), _LONGEST_FITTED)
    text.set_parse_math(False)
    text.set_text(shortened(whole, length))
    with _missing_glyphs_allowed():
        while length > 1 and text.get_window_extent().width > width * DPI:
            length -= 1
            text.set_text(shortened(whole, length))


@contextmanager
def _missing_glyphs_allowed() -> Iterator[None]:
    """Draw what the font lacks as a box, without a word: class names may be in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ ", category=UserWarning)
        yield


def heading(axes: Axes, text: str) -> Text:
    """Title a panel as all figures do."""
    return axes.set_title(text, fontsize=12, fontweight="bold", loc="left")


def plain(axes: Axes) -> None:
    """Draw a frame of two sides and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", lw=0.7)
    axes.set_axisbelow(True)


def to_png(canvas: Canvas, name: str, *, cut: bool = False) -> Figure:
    """Save the drawn canvas as the record ``name``, with ``cut`` without its blank margins."""
    for text in canvas.findobj(Text):
        # A class or a layer may have a $ in its name, which matplotlib would read as mathematics.
        text.set_parse_math(False)
    buffer = io.BytesIO()
    with _missing_glyphs_allowed():
        canvas.savefig(buffer, format="png", bbox_inches="tight" if cut else None)
    return Figure(name, buffer.getvalue())
