"""Pictures of patches and visual words: what is drawn, read back from the pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from scenetrack.data.patches import PatchGrid
from scenetrack.errors import ScenetrackError
from scenetrack.figures.patches import WORD_COLOURS, patch_grid, visual_words
from scenetrack.records import Figure

GRID = PatchGrid(image_size=32, patch_size=8, stride=4)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"), np.int64)


def count(figure: Figure, colour: str) -> int:
    """Pixels of a colour, with room for its transparency."""
    wanted = np.round(255 * np.array(to_rgb(colour)))
    return int((np.abs(pixels(figure) - wanted).sum(axis=2) < 40).sum())


def flat_image(level: int = 0) -> np.ndarray:
    return np.full((32, 32, 3), level, np.uint8)


class TestPatchGrid:
    def test_is_a_png_under_its_name(self) -> None:
        figure = patch_grid(flat_image(), GRID, name="figures/other.png")
        assert figure.name == "figures/other.png"
        assert figure.png.startswith(b"\x89PNG")

    def test_shows_every_patch_once_on_the_right(self) -> None:
        """49 patches of 64 px overlap on the left; apart they are 49 x 64 px with gaps of 1."""
        image = flat_image()
        image[:, :] = (200, 30, 40)
        shown = pixels(patch_grid(image, GRID))
        right = shown[:, shown.shape[1] // 2 :]
        red = (np.abs(right - (200, 30, 40)).sum(axis=2) < 20).sum()
        white = (np.abs(right - 255).sum(axis=2) < 20).sum()
        side = 7 * 9 - 1
        share = red / (red + white)
        # The heading and the marks cost some of both.
        assert share == pytest.approx(49 * 64 / side**2, abs=0.1)

    def test_marks_the_patch_with_the_most_contrast(self) -> None:
        images = [flat_image(), flat_image()]
        images[0][:4, :4] = 255
        images[1][-4:, :4] = 255
        rows = []
        for image in images:
            orange = np.abs(pixels(patch_grid(image, GRID)) - (230, 159, 0)).sum(axis=2) < 40
            rows.append(np.flatnonzero(orange.any(axis=1)).mean() / len(orange))
        assert rows[0] < 0.3
        assert rows[1] > 0.7

    def test_a_single_patch(self) -> None:
        assert patch_grid(flat_image(), PatchGrid(32, 32, 1)).png

    def test_refuses_an_image_of_another_size(self) -> None:
        with pytest.raises(ScenetrackError, match=r"32 x 32 px is required.*\(16, 16, 3\)"):
            patch_grid(np.zeros((16, 16, 3), np.uint8), GRID)


class TestVisualWords:
    def test_colours_the_words_of_the_image_only(self) -> None:
        words = np.zeros(GRID.count, np.int64)
        words[:9] = 3
        figure = visual_words(flat_image(), words, 8, GRID)
        assert count(figure, WORD_COLOURS[0]) > count(figure, WORD_COLOURS[1]) > 0
        assert count(figure, WORD_COLOURS[2]) == 0

    def test_bars_are_as_high_as_the_shares(self) -> None:
        words = np.zeros(GRID.count, np.int64)
        words[:14] = 3  # 35 and 14 of 49 patches
        shown = pixels(visual_words(flat_image(), words, 40, GRID))
        bars = shown[:, int(0.6 * shown.shape[1]) :]
        heights = []
        for colour in WORD_COLOURS[:2]:
            wanted = np.round(255 * np.array(to_rgb(colour)))
            # The legend's handles are lower than any bar.
            heights.append((np.abs(bars - wanted).sum(axis=2) < 40).sum(axis=0).max())
        assert heights[0] / heights[1] == pytest.approx(35 / 14, rel=0.1)

    def test_more_words_than_colours(self) -> None:
        words = np.arange(GRID.count) % 20
        assert visual_words(flat_image(), words, 20, GRID).png

    def test_refuses_another_number_of_words(self) -> None:
        with pytest.raises(ScenetrackError, match=r"grid's 49 patches.*\(48,\)"):
            visual_words(flat_image(), np.zeros(48, np.int64), 4, GRID)
