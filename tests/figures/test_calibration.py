"""Pictures of trust: reliability, mistakes, and what the seed changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from scenetrack import figures
from scenetrack.figures import calibration, mistakes, seed_spread, style
from scenetrack.records import Figure

ODD_NAMES = ("$\\nope{$", "森林", "नमस्ते", "w" * 200)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))


def share_of(picture: np.ndarray, colour: str) -> float:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((picture == wanted).all(axis=2).mean())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    canvases: list[Canvas] = []

    def keep(canvas: Canvas, name: str) -> Figure:
        canvases.append(canvas)
        return style.to_png(canvas, name)

    monkeypatch.setattr(calibration, "to_png", keep)
    monkeypatch.setattr(mistakes, "to_png", keep)
    return canvases


def test_reliability_shows_bars_gaps_and_counts(drawn: list[Canvas]) -> None:
    counts = np.array([0, 3, 10, 40])
    confidence, accuracy = np.array([0, 0.4, 0.6, 0.9]), np.array([0, 0.3, 0.7, 0.9])
    figure = figures.draw_reliability_diagram(counts, confidence, accuracy, 0.0377, "SVM")
    assert figure.name == "figures/reliability.png"
    above, below = drawn[0].axes
    assert above.get_title(loc="left") == "SVM: calibration error 0.038"
    # An empty bin has neither bar nor gap: it says nothing.
    assert [bar.get_height() for bar in above.patches] == [0.3, 0.7, 0.9]
    assert [bar.get_height() for bar in below.patches] == [0, 3, 10, 40]
    gaps = above.collections[0].get_segments()
    assert [sorted(segment[:, 1]) for segment in gaps] == [[0.3, 0.4], [0.6, 0.7], [0.9, 0.9]]
    assert share_of(pixels(figure), style.ORANGE) > 1e-4


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_any_script_are_drawn_as_they_are(drawn: list[Canvas], name: str) -> None:
    ones = np.ones(3)
    assert pixels(figures.draw_reliability_diagram(ones, ones, ones, 0.0, name)).std() > 0
    image = np.zeros((1, 8, 8, 3), np.uint8)
    assert pixels(figures.draw_mistakes(image, [(name, name, 0.5)], name)).std() > 0
    assert pixels(figures.draw_seed_spread({name: [0.5, 0.6]}, name)).std() > 0
    for canvas in drawn:
        for text in canvas.texts:
            assert text.get_window_extent().x1 <= canvas.bbox.x1 + 1


@pytest.mark.parametrize("count", [1, 4, 5, 16])
def test_each_mistake_has_its_image_and_caption(drawn: list[Canvas], count: int) -> None:
    images = np.zeros((count, 10, 20, 3), np.uint8)
    images[:] = np.array([(40 + 10 * k, 0, 200 - 10 * k) for k in range(count)])[:, None, None]
    captions = [(f"true {k}", f"said {k}", 1 - k / 100) for k in range(count)]
    figure = figures.draw_mistakes(images, captions, "SVM")
    picture = pixels(figure)
    for k in range(count):
        assert share_of(picture, f"#{40 + 10 * k:02x}00{200 - 10 * k:02x}") > 0.005
    texts = [text.get_text() for text in drawn[0].texts]
    assert texts[:2] == ["true 0", "100.0%  said 0"]
    assert len(texts) == 2 * count + 1
    assert texts[-1] == "Most confident mistakes: SVM"


def test_captions_lie_between_the_images(drawn: list[Canvas]) -> None:
    images = np.zeros((6, 8, 8, 3), np.uint8)
    figures.draw_mistakes(images, [("true", "said", 0.9)] * 6, "SVM")
    first, fifth = (drawn[0].axes[k].get_window_extent() for k in (0, 4))
    being, reported = (text.get_window_extent() for text in drawn[0].texts[8:10])
    assert first.y0 > being.y1 > being.y0 > reported.y1 > reported.y0 > fifth.y1


def test_seeds_are_dots_around_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    canvases: list[Canvas] = []
    monkeypatch.setattr(
        seed_spread, "to_png", lambda canvas, name: canvases.append(canvas) or Figure(name, b"")
    )
    figures.draw_seed_spread({"worse": [0.5, 0.5, 0.5], "better": [0.8, 0.84, 0.82]})
    (axes,) = canvases[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["better", "worse"]
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert [list(row) for row in dots] == [[0.8, 0.84, 0.82], [0.5, 0.5, 0.5]]
    assert [text.get_text() for text in axes.texts] == ["82.0% ± 2.0%", "50.0% ± 0.0%"]
    figures.draw_seed_spread({"same": [0.5, 0.5]})
    low, high = canvases[1].axes[0].get_xlim()
    assert high - low == pytest.approx(0.04, abs=0.02)
