from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from PIL import Image

from scenetrack import figures
from scenetrack.errors import ScenetrackError
from scenetrack.figures import confusion_matrix, learning_curves, method_comparison, montage, style
from scenetrack.figures.style import wrapped
from scenetrack.records import Figure


def chain(copies: int = 1) -> list[figures.LayerRow]:
    """A network of four layers, one after the other, or of many times as many."""
    rows: list[figures.LayerRow] = []
    for copy in range(copies):
        for name, kind, shape, parameters in (
            ("images", "InputLayer", (None, 32, 32, 3), 0),
            ("flatten", "Flatten", (None, 3072), 0),
            ("hidden_1", "Dense", (None, 64), 196672),
            ("probabilities", "Dense", (None, 8), 520),
        ):
            sources = [rows[-1].name] if rows else []
            rows.append(figures.LayerRow(f"{name}_{copy}", kind, shape, parameters, sources))
    return rows


def pixels(figure: Figure) -> np.ndarray:
    assert figure.png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))


def share_of(picture: np.ndarray, colour: str) -> float:
    """The share of the pixels that have exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((picture == wanted).all(axis=2).mean())


def history(epochs: int, *, validation: bool = True) -> dict[str, list[float]]:
    rising = list(np.linspace(0.2, 0.9, epochs))
    curves = {"train/accuracy": rising, "train/loss": rising[::-1]}
    return curves | ({"val/accuracy": rising, "val/loss": rising[::-1]} if validation else {})


def test_learning_curves_show_validation_where_there_is_one() -> None:
    figure = figures.draw_learning_curves(history(10), best_epoch=6)
    assert figure.name == "figures/learning_curves.png"
    assert share_of(pixels(figure), style.RED) > 1e-4
    alone = pixels(figures.draw_learning_curves(history(10, validation=False)))
    assert share_of(alone, style.RED) == 0
    assert share_of(alone, style.BLUE) > 1e-4


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """The canvases of the figures that are made."""
    canvases: list[Canvas] = []

    def keep(canvas: Canvas, name: str, **options: bool) -> Figure:
        canvases.append(canvas)
        return style.to_png(canvas, name, **options)

    monkeypatch.setattr(confusion_matrix, "to_png", keep)
    monkeypatch.setattr(learning_curves, "to_png", keep)
    monkeypatch.setattr(method_comparison, "to_png", keep)
    monkeypatch.setattr(montage, "to_png", keep)
    return canvases


@pytest.mark.parametrize("accuracy", [0.0, 0.31, 1.0])
@pytest.mark.parametrize("epochs", [1, 5])
def test_flat_curves_are_not_blown_up(drawn: list[Canvas], accuracy: float, epochs: int) -> None:
    figures.draw_learning_curves(
        {"train/accuracy": [accuracy] * epochs, "train/loss": [0.5] * epochs}
    )
    left, right = (axes.get_ylim() for axes in drawn[0].axes)
    assert left[1] - left[0] == pytest.approx(0.12)
    assert -0.01 < left[0] <= accuracy <= left[1] < 1.01
    assert right == pytest.approx((0.4, 0.6))
    first, last = drawn[0].axes[0].get_xlim()
    ticks = [tick for tick in drawn[0].axes[0].get_xticks() if first <= tick <= last]
    assert ticks == list(range(1, epochs + 1))


def test_legend_and_axis_of_the_accuracy_have_one_unit(drawn: list[Canvas]) -> None:
    figures.draw_learning_curves(history(4))
    accuracy, loss = ([t.get_text() for t in a.get_legend().get_texts()] for a in drawn[0].axes)
    assert accuracy == ["training, 90.0%", "validation, 90.0%"]
    assert loss == ["training, 0.200", "validation, 0.200"]


ODD_NAMES = ("$\\nope{$", "a$b$c", "森林", "नमस्ते", "w" * 200)


def test_names_of_any_script_are_drawn_as_they_are() -> None:
    confusion = np.eye(len(ODD_NAMES), dtype=int)
    images = np.zeros((len(ODD_NAMES), 8, 8, 3), np.uint8)
    assert pixels(figures.draw_confusion_matrix(confusion, ODD_NAMES, "$x^")).std() > 0
    assert pixels(figures.draw_montage(images, ODD_NAMES, 2, title="$\\frac{$")).std() > 0
    assert pixels(figures.draw_activation_maps(np.ones(4), "$\\nope{$")).std() > 0
    assert (
        pixels(figures.draw_method_comparison([(name, 0.5, 0.4, 0.6) for name in ODD_NAMES])).std()
        > 0
    )


def test_titles_of_a_montage_are_cut_to_the_cell(drawn: list[Canvas]) -> None:
    names = ("short", "W" * 60, "i" * 60)
    figures.draw_montage(np.zeros((3, 8, 8, 3), np.uint8), names, 3)
    short, wide, narrow = (axes.get_title() for axes in drawn[0].axes)
    assert short == "short"
    assert wide[-1] == narrow[-1] == "…"
    assert 5 < len(wide) < len(narrow) < 60
    for axes in drawn[0].axes:
        assert axes.title.get_window_extent().width <= 1.5 * style.DPI


def test_large_confusion_matrices_leave_counts_and_some_names_out(drawn: list[Canvas]) -> None:
    for classes in (40, 41, 200):
        confusion = np.eye(classes, dtype=int)
        figures.draw_confusion_matrix(confusion, [f"class {k}" for k in range(classes)])
    texts = [len(canvas.axes[0].texts) for canvas in drawn]
    names = [len(canvas.axes[0].get_xticks()) for canvas in drawn]
    assert texts == [40, 0, 0]
    assert names == [40, 41, 67]  # of 200 every third
    assert drawn[2].get_size_inches().max() == drawn[0].get_size_inches().max()


def test_confusion_matrix_has_no_blank_bands() -> None:
    names = [f"a_rather_long_class_{k}" for k in range(40)]
    picture = pixels(figures.draw_confusion_matrix(np.eye(40, dtype=int), names))
    rows, columns = (np.flatnonzero((picture < 255).any(axis=(axis, 2))) for axis in (1, 0))
    height, width = picture.shape[:2]
    assert max(rows[0], columns[0], height - rows[-1], width - columns[-1]) < 0.02 * height


def test_the_kept_epoch_is_marked() -> None:
    early = figures.draw_learning_curves(history(10), best_epoch=1)
    late = figures.draw_learning_curves(history(10), best_epoch=8)
    assert early.png != late.png
    # Without a choice by the caller, the best validation accuracy is marked: here the last.
    marked = figures.draw_learning_curves(history(10)).png
    assert (
        marked != figures.draw_learning_curves(history(10), best_epoch=9).png
    )  # "best", not "kept"


@pytest.mark.parametrize("classes", [2, 8, 15, 40])
def test_confusion_matrix_of_any_number_of_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    confusion = np.diag(rng.integers(5, 90, classes)) + rng.integers(0, 3, (classes, classes))
    names = [f"a_rather_long_class_{k}" for k in range(classes)]
    picture = pixels(figures.draw_confusion_matrix(confusion, names, "SVM"))
    height, width = picture.shape[:2]
    assert 500 < height < 2200
    assert 500 < width < 2300
    # Nothing is cut off: the outermost pixels stay white.
    assert (picture[:, -2:] == 255).all()
    assert (picture[-2:] == 255).all()


def test_confusion_matrix_of_a_class_without_images() -> None:
    assert pixels(figures.draw_confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"])).std() > 0


def test_topology_has_a_box_per_layer_and_grows() -> None:
    small = pixels(figures.draw_topology(chain()))
    long = pixels(figures.draw_topology(chain(10), title="deep"))
    assert share_of(small, style.BLUE) > 1e-3
    assert long.shape[1] > 2 * small.shape[1]
    assert long.shape[0] < 2000


def test_topology_shows_a_layer_that_takes_another_than_the_one_before() -> None:
    straight = chain()
    branched = [*straight[:3], straight[3]._replace(sources=["flatten_0", "hidden_1_0"])]
    plain, marked = (pixels(figures.draw_topology(rows)) for rows in (straight, branched))
    assert share_of(marked, style.BLUE) > share_of(plain, style.BLUE)


@given(st.integers(1, 9), st.integers(1, 5), st.booleans())
@settings(max_examples=8, deadline=None)
def test_montage_shows_every_image(count: int, columns: int, titled: bool) -> None:
    # One colour per image, none of them white or grey.
    colours = [(40 + 20 * k, 0, 200 - 20 * k) for k in range(count)]
    images = np.zeros((count, 12, 16, 3), dtype=np.uint8)
    images[:] = np.array(colours, dtype=np.uint8)[:, None, None]
    titles = [f"class {k}" if titled else "" for k in range(count)]
    figure = figures.draw_montage(images, titles, columns, title="all", name="figures/samples.png")
    picture = pixels(figure)
    assert figure.name == "figures/samples.png"
    for colour in colours:
        assert share_of(picture, "#{:02x}{:02x}{:02x}".format(*colour)) > 0.005


def test_comparison_grows_with_the_methods_and_takes_any_order() -> None:
    rows = [("a", 0.5, 0.4, 0.6), ("b", 0.7, 0.6, 0.8), ("certain", 1.0, 0.98, 1.0)]
    assert (
        figures.draw_method_comparison(rows).png == figures.draw_method_comparison(rows[::-1]).png
    )
    assert (
        pixels(figures.draw_method_comparison(rows * 4)).shape[0]
        > pixels(figures.draw_method_comparison(rows)).shape[0]
    )


class TestWrapped:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("svm", "svm"),
            ("one two three", "one two\nthree"),
            ("one two three four", "one two\n…ee four"),
            ("abcdefghijklmnopqrstuvwxyz", "abcdefgh\n…tuvwxyz"),
        ],
    )
    def test_by_hand(self, text: str, shown: str) -> None:
        assert wrapped(text, 8) == shown

    @given(st.text(max_size=80), st.integers(2, 20))
    def test_fits_and_keeps_both_ends(self, text: str, width: int) -> None:
        lines = wrapped(text, width).split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= width

    def test_methods_of_one_run_look_different(self) -> None:
        run = "patch_bow mit8 best 256 fisher_vector: "
        first, second = (f"{run}fisher vector {kernel} svm" for kernel in ("linear", "rbf"))
        rows = [(first, 0.9, 0.8, 0.95), (second, 0.8, 0.7, 0.9)]
        swapped = [(second, 0.9, 0.8, 0.95), (first, 0.8, 0.7, 0.9)]
        assert (
            figures.draw_method_comparison(rows).png != figures.draw_method_comparison(swapped).png
        )


@pytest.mark.parametrize("shape", [(8,), (1000,), (1,), (49, 64), (6, 6, 3), (5, 7, 40), (1, 1, 1)])
@pytest.mark.parametrize("kind", ["signed", "positive", "zeros"])
def test_activations_of_any_shape(shape: tuple[int, ...], kind: str) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values = {"signed": values, "positive": np.abs(values), "zeros": 0 * values}[kind]
    image = np.full((20, 30, 3), (250, 10, 10), dtype=np.uint8)
    assert share_of(pixels(figures.draw_activation_maps(values, "layer", image)), "#fa0a0a") > 0.02
    assert share_of(pixels(figures.draw_activation_maps(values, "layer")), "#fa0a0a") == 0


def test_activations_of_too_many_axes() -> None:
    with pytest.raises(ScenetrackError, match=r"1 to 3 axes .* \(1, 2, 3, 4\)"):
        figures.draw_activation_maps(np.zeros((1, 2, 3, 4)), "layer")


def test_no_global_state_is_touched() -> None:
    figures.draw_topology(chain())
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )
