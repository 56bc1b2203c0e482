"""Saliency: which places of an image speak for its class, of patches or by occlusion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenetrack.data.patches import PatchGrid

_GREY = 128
# A quarter of the side hides what a scene is known by, an eighth between the squares tells where
# it lies, and the 49 squares of an image are one batch.
_SQUARES_A_SIDE = 4
_STEPS_A_SIDE = 8


def covering_grid(image_size: int) -> PatchGrid:
    """Return the places of ``occlusion``'s grey squares on an image of that side, in pixels."""
    return PatchGrid(
        image_size, max(1, image_size // _SQUARES_A_SIDE), max(1, image_size // _STEPS_A_SIDE)
    )


def occlusion(
    scores: Callable[[np.ndarray], np.ndarray], image: np.ndarray, label: int, batch: int
) -> np.ndarray:
    """Return how far a class's score falls when a grey square covers each place of an image.

    A score is taken relative to the mean over the classes, for a shift of all of them decides
    nothing. After Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014,
    section 4.2.

    Args:
        scores: of images uint8 [N, S, S, 3], as float [N, C].
        image: uint8 [S, S, 3].
        label: the class.
        batch: images given to ``scores`` at once.

    Returns:
        float64 [side, side] on ``covering_grid(S)``; positive where the place speaks for the class.
    """
    grid = covering_grid(len(image))
    lead = _lead(scores(image[None]), label)
    falls = np.empty(grid.count)
    for start in range(0, grid.count, batch):
        corners = grid.positions[start : start + batch]
        covered = np.repeat(image[None], len(corners), axis=0)  # n x S x S x 3
        for covered_image, (y, x) in zip(covered, corners, strict=True):
            covered_image[y : y + grid.patch_size, x : x + grid.patch_size] = _GREY
        falls[start : start + batch] = lead - _lead(scores(covered), label)
    return falls.reshape(grid.side, grid.side)


def _lead(scores: np.ndarray, label: int) -> np.ndarray:
    exact = scores.astype(np.float64)
    lead: np.ndarray = exact[:, label] - exact.mean(axis=1)
    return lead


def spread(values: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Spread the values of patches over pixels: each gets the mean over the patches that hold it.

    A patch counts the more the nearer the pixel is to its middle, so that the map shows no edges
    where patches overlap.

    Args:
        values: float [side, side], of the patches of ``grid``.
        grid: where they lie.

    Returns:
        float64 [S, S], S being the grid's image size; NaN where there is no patch.
    """
    starts = np.arange(grid.side) * grid.stride
    middles = starts + (grid.patch_size - 1) / 2
    distances = np.abs(np.arange(grid.image_size)[:, None] - middles)  # S x side
    weights = np.maximum((grid.patch_size + 1) / 2 - distances, 0)
    totals = weights.sum(axis=1)
    known = totals > 0
    weights[known] /= totals[known, None]
    return np.where(np.outer(known, known), weights @ values @ weights.T, np.nan)
