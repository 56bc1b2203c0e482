"""Pictures of an image as patches, and of the visual words that its patches become."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch, Rectangle

from scenetrack.data.patches import PatchGrid
from scenetrack.errors import ScenetrackError
from scenetrack.figures.style import BLUE, DPI, GREEN, GREY, ORANGE, RED, heading, plain, to_png
from scenetrack.records import Figure

PURPLE = "#CC79A7"
WORD_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)


def patch_grid(
    image: np.ndarray, grid: PatchGrid, *, name: str = "figures/patch_grid.png"
) -> Figure:
    """Draw an image with its patches outlined, and beside it the patches taken apart.

    The patch with the most contrast and its right neighbour are marked on both sides.

    Args:
        image: uint8 [S, S, 3], S being the grid's image size.
        grid: where the patches lie.
        name: artifact path of the figure.

    Raises:
        ScenetrackError: the image is of another size.
    """
    _check_size(image, grid)
    canvas = Canvas(figsize=(10, 5.2), dpi=DPI, layout="constrained")
    whole, apart = canvas.subplots(1, 2)
    whole.imshow(image)
    for corner in grid.positions:
        _outline(whole, corner, grid.patch_size, "white", lw=0.4, alpha=0.6)
    apart.imshow(_taken_apart(image, grid))
    first = _most_contrast(image, grid)
    neighbour = min(first + 1, grid.count - 1)
    for index, colour, dashes in ((neighbour, BLUE, "--"), (first, ORANGE, "-")):
        corner = grid.positions[index]
        cell = np.array(divmod(index, grid.side)) * (grid.patch_size + _gap(grid))
        for axes, place in ((whole, corner), (apart, cell)):
            _outline(axes, place, grid.patch_size, colour, lw=2, linestyle=dashes)
    heading(whole, f"{grid.patch_size} px patches every {grid.stride} px")
    heading(apart, f"{grid.side} x {grid.side} = {grid.count} patches, taken apart")
    for axes in (whole, apart):
        axes.axis("off")
    return to_png(canvas, name)


def visual_words(
    image: np.ndarray,
    words: np.ndarray,
    codebook_size: int,
    grid: PatchGrid,
    *,
    name: str = "figures/visual_words.png",
) -> Figure:
    """Draw an image, where its commonest visual words lie, and its histogram of all words.

    Args:
        image: uint8 [S, S, 3], S being the grid's image size.
        words: int64 [grid.count], the word of each patch, in the order of ``grid.positions``.
        codebook_size: number K of words; each of ``words`` is in [0, K).
        grid: where the patches lie.
        name: artifact path of the figure.

    Raises:
        ScenetrackError: the image is of another size, or there is not one word for each patch.
    """
    _check_size(image, grid)
    if words.shape != (grid.count,):
        raise ScenetrackError(
            f"one word for each of the grid's {grid.count} patches is required. "
            f"Received: shape {words.shape}"
        )
    counts = np.bincount(words, minlength=codebook_size)
    order = np.argsort(-counts, kind="stable")[: len(WORD_COLOURS)]
    coloured = {
        int(word): colour for word, colour in zip(order, WORD_COLOURS, strict=False) if counts[word]
    }
    canvas = Canvas(figsize=(12, 3.9), dpi=DPI, layout="constrained")
    whole, places, bars = canvas.subplots(1, 3, width_ratios=(1, 1, 1.5))
    whole.imshow(image)
    heading(whole, "Image")
    _draw_places(places, image, words, grid, coloured)
    _draw_histogram(bars, counts, coloured)
    for axes in (whole, places):
        axes.axis("off")
    return to_png(canvas, name)


def _draw_places(
    axes: Axes, image: np.ndarray, words: np.ndarray, grid: PatchGrid, coloured: dict[int, str]
) -> None:
    """Draw a square of one stride in the middle of each patch of the coloured words."""
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=-255, vmax=255)
    inset = (grid.patch_size - grid.stride) / 2
    for word, corner in zip(words, grid.positions, strict=True):
        if int(word) in coloured:
            y, x = corner + inset - 0.5
            square = Rectangle((x, y), grid.stride, grid.stride, lw=0, alpha=0.8)
            square.set_facecolor(coloured[int(word)])
            axes.add_patch(square)
    heading(axes, "Where its commonest words lie")


def _draw_histogram(axes: Axes, counts: np.ndarray, coloured: dict[int, str]) -> None:
    share = counts / counts.sum()
    axes.bar(np.arange(len(share)), share, width=1, color=GREY)
    for word, colour in coloured.items():
        axes.bar(word, share[word], width=max(1, len(share) / 100), color=colour)
    handles = [
        Patch(color=colour, label=f"word {word}, {counts[word]} patches")
        for word, colour in coloured.items()
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8.5)
    axes.set(xlabel="visual word", ylabel="share of the patches")
    heading(axes, f"Histogram of {len(share)} words")
    plain(axes)


def _most_contrast(image: np.ndarray, grid: PatchGrid) -> int:
    """Find the patch of the largest standard deviation among those with a right neighbour."""
    deviations = grid.extract(image[None])[0].std(axis=(1, 2, 3)).reshape(grid.side, grid.side)
    if grid.side > 1:
        deviations[:, -1] = -1
    return int(deviations.argmax())


def _gap(grid: PatchGrid) -> int:
    return max(1, grid.patch_size // 8)


def _taken_apart(image: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Lay the patches in their rows with white gaps: uint8 [M, M, 3]."""
    gap, size = _gap(grid), grid.patch_size
    patches = grid.extract(image[None])[0].reshape(grid.side, grid.side, size, size, 3)
    padded = np.pad(
        patches, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255
    )  # side x side x (size + gap) x (size + gap) x 3
    length = grid.side * (size + gap)
    return padded.transpose(0, 2, 1, 3, 4).reshape(length, length, 3)[:-gap, :-gap]


def _outline(
    axes: Axes,
    corner: np.ndarray,
    size: int,
    colour: str,
    *,
    lw: float,
    linestyle: str = "-",
    alpha: float = 1.0,
) -> None:
    y, x = np.asarray(corner) - 0.5
    square = Rectangle((x, y), size, size, fill=False, edgecolor=colour)
    square.set(linewidth=lw, linestyle=linestyle, alpha=alpha)
    axes.add_patch(square)


def _check_size(image: np.ndarray, grid: PatchGrid) -> None:
    if image.shape != (grid.image_size, grid.image_size, 3):
        raise ScenetrackError(
            f"an image of {grid.image_size} x {grid.image_size} px is required, as the grid says. "
            f"Received: shape {image.shape}"
        )
