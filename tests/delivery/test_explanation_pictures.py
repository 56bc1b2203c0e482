"""Pictures of why: where evidence lies, covering, names, and what a picture shows."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import PATCH, SIZE, STRIDE, fake_bundle, paint
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from PIL import Image

from scenetrack.data.patches import PatchGrid
from scenetrack.delivery.bundle import with_evidence
from scenetrack.delivery.explanation import covering_grid, occlusion, spread
from scenetrack.delivery.explanation_pictures import Explainer, PictureNames
from scenetrack.delivery.file_classifier import Classifier
from scenetrack.delivery.rows import make_rows
from scenetrack.errors import ModelError
from scenetrack.figures import style
from scenetrack.figures.saliency import evidence_map
from scenetrack.graphs.files import read_model
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import Figure


def red_share(images: np.ndarray) -> np.ndarray:
    """Scores [N, 2]: the sums of red and of green, in whole numbers."""
    return images[..., :2].sum(axis=(1, 2), dtype=np.int64).astype(np.float64)


class TestOcclusion:
    def test_by_hand(self) -> None:
        """Only pixels that differ from grey change the score, each square what it covers."""
        image = np.full((8, 8, 3), 128, np.uint8)
        image[2, 3, 0] = 228
        values = occlusion(red_share, image, 0, batch=5)
        grid = covering_grid(8)
        assert (grid.patch_size, grid.stride, values.shape) == (2, 1, (7, 7))
        covers = [(y <= 2 < y + 2) and (x <= 3 < x + 2) for y, x in grid.positions]
        # 100 less red: red's score falls by 100, the mean of both by 50.
        np.testing.assert_array_equal(values.ravel(), np.where(covers, 50, 0))

    @given(st.integers(1, 30), st.integers(1, 60))
    def test_any_size_of_image_and_batch(self, size: int, batch: int) -> None:
        image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
        before = image.copy()
        values = occlusion(red_share, image, 1, batch)
        np.testing.assert_array_equal(values, occlusion(red_share, image, 1, 1))
        np.testing.assert_array_equal(image, before)
        grid = covering_grid(size)
        assert values.shape == (grid.side, grid.side)

    def test_a_shift_of_all_scores_changes_nothing(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
        # What is covered is darker or brighter in every class by the same.
        shifted = occlusion(lambda x: red_share(x) + x.sum(axis=(1, 2, 3))[:, None], image, 0, 9)
        np.testing.assert_allclose(shifted, occlusion(red_share, image, 0, 9), atol=1e-9)


class TestSpread:
    def test_patches_side_by_side_keep_their_values(self) -> None:
        values = np.arange(9, dtype=np.float64).reshape(3, 3)
        expected = values.repeat(4, axis=0).repeat(4, axis=1)
        np.testing.assert_allclose(spread(values, PatchGrid(12, 4, 4)), expected)

    def test_gaps_and_rests_are_unknown(self) -> None:
        known = np.isfinite(spread(np.ones((2, 2)), PatchGrid(9, 2, 5)))
        line = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0], bool)
        np.testing.assert_array_equal(known, np.outer(line, line))

    def test_overlapping_patches_by_brute_force(self) -> None:
        grid = PatchGrid(11, 5, 2)
        values = np.random.default_rng(0).normal(size=(4, 4))
        sums, weights = np.zeros((2, 11, 11))
        window = np.minimum(np.arange(1, 6), np.arange(5, 0, -1))
        for value, (y, x) in zip(values.ravel(), grid.positions, strict=True):
            sums[y : y + 5, x : x + 5] += value * np.outer(window, window)
            weights[y : y + 5, x : x + 5] += np.outer(window, window)
        np.testing.assert_allclose(spread(values, grid), sums / weights)

    @given(
        st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.floats(-1e3, 1e3, width=32)
    )
    def test_equal_values_make_a_flat_map(
        self, size: int, patch: int, stride: int, value: float
    ) -> None:
        grid = PatchGrid(max(size, patch), patch, stride)
        spreaded = spread(np.full((grid.side, grid.side), value), grid)
        known = spreaded[np.isfinite(spreaded)]
        assert known.size
        np.testing.assert_allclose(known, value, rtol=1e-9)


class TestNames:
    def test_doubles_get_numbers(self) -> None:
        names = PictureNames()
        paths = ("a/x.jpg", "b/x.png", "a/X.jpg", "x_2.jpg", "c/x.jpg", "y.tar.jpg")
        listed = [names.name(path) for path in paths]
        assert listed == ["x.png", "x_2.png", "X_3.png", "x_2_2.png", "x_4.png", "y.tar.png"]

    @given(st.lists(st.text(st.sampled_from("aA_23é"), min_size=1, max_size=5)))
    def test_all_differ_without_case(self, stems: list[str]) -> None:
        names = PictureNames()
        listed = [names.name(f"folder/{stem}.jpg").casefold() for stem in stems]
        assert len(set(listed)) == len(listed)

    @pytest.mark.parametrize("stem", ["é" * 120, "x" * 251, os.fsdecode(b"\xff" * 251)])
    def test_long_ones_fit_a_file_system(self, tmp_path: Path, stem: str) -> None:
        names = PictureNames()
        for _ in range(2):
            name = names.name(f"{stem}.jpg")
            assert len(os.fsencode(name)) <= 210
            (tmp_path / name).touch()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


class TestPicture:
    def test_red_speaks_for_and_blue_against(self) -> None:
        image = np.full((40, 60, 3), 255, np.uint8)
        evidence = np.zeros((10, 10))
        evidence[:, :3], evidence[:, 7:] = 2, -2
        shown = pixels(evidence_map(image, evidence, "coast", 0.5, "unit", name="x.png").png)
        warmth = shown[100:400, :, 0] - shown[100:400, :, 2]
        width = warmth.shape[1]
        left, right = warmth[:, : int(0.44 * width)], warmth[:, int(0.47 * width) :]
        assert np.abs(left).max() == 0  # the image itself is white
        fifth = right.shape[1] // 6
        assert right[:, :fifth].min() > 80
        assert right[:, 4 * fifth : 4 * fifth + 50].max() < -80

    @pytest.mark.parametrize("fill", [0.0, np.nan, 1e-30, 1e30])
    @pytest.mark.parametrize("shape", [(1, 1, 3), (3, 300, 3), (300, 3, 3)])
    def test_any_evidence_and_shape(self, fill: float, shape: tuple[int, ...]) -> None:
        evidence = np.full((4, 4), fill)
        figure = evidence_map(np.zeros(shape, np.uint8), evidence, "$x^", 1.0, "unit", name="x.png")
        assert pixels(figure.png).shape[0] > 300

    @pytest.mark.parametrize("name", ["a very long name of a class of scenes " * 3, "森" * 40])
    def test_long_names_are_cut_to_their_image(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        titles: list[str] = []

        def keep(canvas: Canvas, name: str) -> Figure:
            titles.append(canvas.axes[0].get_title(loc="left"))
            return style.to_png(canvas, name)

        monkeypatch.setattr("scenetrack.figures.saliency.to_png", keep)
        image = np.full((30, 30, 3), 255, np.uint8)
        short, long = (
            pixels(evidence_map(image, np.ones((3, 3)), label, 0.5, "unit", name="x.png").png)
            for label in ("coast", name)
        )
        assert short.shape == long.shape
        # The heading of the second image begins where the first one, 3.6 inches wide, ends.
        edge, top = int(3.7 * style.DPI), int(0.4 * style.DPI)
        assert (short[:top, edge:] != 255).any()
        assert np.array_equal(short[:top, edge:], long[:top, edge:])
        assert titles[0] == "coast  50.0%"
        label, share = titles[1].split("…")
        assert share == "  50.0%"
        assert label
        assert name.startswith(label)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """Left half red, right half blue, and a little more red than blue in all."""
    image = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
    image.paste((0, 0, 200), (SIZE // 2, 0, SIZE, SIZE))
    image.save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def explained(bundle: bytes | Path, folder: Path, *paths: str) -> None:
    classifier = Classifier(OnnxModel(bundle, device="cpu"), memory=2**24, threads=1)
    explainer = Explainer(folder, classifier, ["earlier/photo.jpg"])
    for batch in classifier.batches(paths):
        rows = make_rows(batch.paths, batch.problems, batch.outputs, classifier.classes, 2)
        explainer.explain(batch, rows)


@pytest.mark.parametrize("evidence", [True, False])
def test_pictures_of_a_bundle(
    tmp_path: Path, photo: str, evidence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def record(image: np.ndarray, values: np.ndarray, label: str, probability: float, *_, **__):  # type: ignore[no-untyped-def]
        drawn.append((values, label, probability))
        return evidence_map(image, values, label, probability, "", name="x.png")

    monkeypatch.setattr("scenetrack.delivery.explanation_pictures.evidence_map", record)
    bundle = fake_bundle(tmp_path / "b.onnx", evidence=evidence)
    source = with_evidence(read_model(bundle)).SerializeToString() if evidence else bundle
    folder = tmp_path / "maps"
    explained(source, folder, photo, str(tmp_path / "none.png"), photo)
    # The names follow those of the images that were explained before.
    assert sorted(os.listdir(folder)) == ["photo_2.png", "photo_3.png"]
    (values, label, probability), again = drawn
    assert label == "red"
    powers = np.exp([1.275, 0, 1.0])
    assert probability == pytest.approx(powers[0] / powers.sum(), rel=1e-5)
    assert values[:, 2].min() > 0 > values[:, -3].max()
    np.testing.assert_array_equal(values, again[0])
    if evidence:
        # Patches wholly to the left hold 255 of red alone, those to the right 200 of blue.
        np.testing.assert_allclose(values[:, 0], 2.55 - 2.55 / 3, rtol=1e-5)
        np.testing.assert_allclose(values[:, -1], -2 / 3, rtol=1e-5)


def test_grid_of_the_bundle(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path / "b.onnx", evidence=True)
    content = with_evidence(read_model(bundle)).SerializeToString()
    classifier = Classifier(OnnxModel(content, device="cpu"), memory=2**24, threads=1)
    assert classifier.grid == PatchGrid(SIZE, PATCH, STRIDE)
    plain = Classifier(OnnxModel(bundle, device="cpu"), memory=2**24, threads=1)
    assert plain.grid is None


@pytest.mark.parametrize("about", [{"stride": "3"}, {"stride": "x"}, {"patch_size": "99"}])
def test_grid_that_does_not_fit_is_refused(
    tmp_path: Path, photo: str, about: dict[str, str]
) -> None:
    bundle = fake_bundle(tmp_path / "b.onnx", evidence=True, **about)
    content = with_evidence(read_model(bundle)).SerializeToString()
    with pytest.raises(ModelError, match="again with scenetrack bundle"):
        explained(content, tmp_path / "maps", photo)


def test_image_that_vanished_has_no_picture(
    tmp_path: Path, photo: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(
        OnnxModel(fake_bundle(tmp_path / "b.onnx"), device="cpu"), memory=2**24, threads=1
    )
    other = str(paint(tmp_path / "other.png", (9, 99, 9)))
    (batch,) = classifier.batches([photo, other])
    Path(photo).unlink()
    rows = make_rows(batch.paths, batch.problems, batch.outputs, classifier.classes, 1)
    Explainer(tmp_path / "maps", classifier, []).explain(batch, rows)
    assert os.listdir(tmp_path / "maps") == ["other.png"]
    assert "no picture of it" in caplog.text
