"""Dense forms: each against the network patch by patch, and the choice among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.config import DENSE_FORMS, PatchBowConfig
from scenetrack.data.patches import PatchGrid
from scenetrack.errors import ExportError
from scenetrack.export import dense as dense_module
from scenetrack.export.dense import FORMS, Dense, build_dense, choose_form, forms_of, on_grid
from scenetrack.export.pixels import GridSource
from scenetrack.export.steps import layer_tensors
from scenetrack.export.truncate import export_truncated, find_layer
from scenetrack.export.verify import relative_error, row_cosines
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.registry import build_network

CLOSE = 3e-6
SIDE = 6


def pixels(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def patch_network(**settings_: Any) -> Any:
    given_ = {"whitening": 10, "hidden": (9, 5), **settings_}
    config = PatchBowConfig(image_size=16, patch_size=SIDE, **given_)
    model = build_network(config, 3)
    generator = np.random.default_rng(5)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -1.0
        variable.assign(generator.uniform(low, 1.5, variable.shape) / np.sqrt(variable.shape[0]))
    return model


NETWORKS = {
    "whitened": {},
    "raw": {"contrast_offset": 0.0, "whitening": 0, "mean_colour": False},
    "whitened without contrast": {"contrast_offset": 0.0, "mean_colour": False},
    "contrast": {"whitening": 0, "mean_colour": False},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    return patch_network(**NETWORKS[request.param])


def patch_by_patch(model: Any, layer: str, images: np.ndarray, stride: int) -> np.ndarray:
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    rows = range(0, images.shape[1] - SIDE + 1, stride)
    columns = range(0, images.shape[2] - SIDE + 1, stride)
    patches = [images[:, y : y + SIDE, x : x + SIDE] for y in rows for x in columns]
    values = np.asarray(part(np.concatenate(patches), training=False))
    grid = values.reshape(len(rows), len(columns), len(images), -1)
    return grid.transpose(2, 0, 1, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6, 7])
def test_every_form_is_the_network_patch_by_patch(network: Any, form: str, stride: int) -> None:
    tensors = {name: layer_tensors(network)[name] for name in ("hidden_2", "logits")}
    model = OnnxModel(build_dense(network, tensors, stride, form, {}).SerializeToString())
    for images in (pixels(1, 17, 14), pixels(3, SIDE, SIDE), pixels(2, 6, 23)):
        actual = model.run(images=images)
        for name in tensors:
            expected = patch_by_patch(network, name, images, stride)
            assert actual[name].shape == expected.shape
            assert relative_error(expected, actual[name]) < CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_flat_patches_have_hardly_any_contrast(form: str) -> None:
    model = patch_network()
    tensors = {"values": layer_tensors(model)["hidden_1"]}
    runtime = OnnxModel(build_dense(model, tensors, 3, form, {}).SerializeToString())
    images = np.full((2, 12, 12, 3), 255, np.uint8)
    images[1] = 254
    images[1, 3:] = 255
    expected = patch_by_patch(model, "hidden_1", images, 3)
    # The sums are exact: left is the rounding of 255 times a kernel whose columns sum to nothing.
    assert relative_error(expected, runtime.run(images=images)["values"]) < 1e-5


def test_a_layer_that_needs_real_patches_takes_the_form_that_makes_them() -> None:
    model = patch_network(whitening=0)  # concatenates pixels with their mean colour
    tensors = {"values": layer_tensors(model)["hidden_2"]}
    runtime = OnnxModel(build_dense(model, tensors, 4, "patches", {}).SerializeToString())
    images = pixels(2, 15, 19)
    expected = patch_by_patch(model, "hidden_2", images, 4)
    assert relative_error(expected, runtime.run(images=images)["values"]) < CLOSE
    for form in ("conv", "space_to_depth"):
        with pytest.raises(ExportError, match="choose --form patches"):
            build_dense(model, tensors, 4, form, {})


def test_a_convolution_has_no_dense_form() -> None:
    source = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    values = keras.layers.Conv2D(2, 3, name="conv")(keras.layers.Rescaling(1 / 255)(source))
    model = keras.Model(source, values, name="cnn")
    with pytest.raises(ExportError, match="choose an earlier layer, or no --dense"):
        build_dense(model, {"values": model.outputs[0]}, 4, "patches", {})


@pytest.mark.parametrize("layer", ["contrast", "pixels"])
def test_patches_themselves_can_be_descriptors(layer: str) -> None:
    model = patch_network()
    tensors = {"values": layer_tensors(model)[layer]}
    runtime = OnnxModel(build_dense(model, tensors, 5, "patches", {}).SerializeToString())
    images = pixels(2, 16, 16)
    patches = PatchGrid(16, SIDE, 5).extract(images)
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    expected = np.asarray(part(patches.reshape(-1, SIDE, SIDE, 3)))
    actual = runtime.run(images=images)["values"]
    assert actual.shape == (2, 3, 3, *expected.shape[1:])
    assert relative_error(expected, actual.reshape(expected.shape)) < CLOSE


@settings(deadline=None, max_examples=40)
@given(
    side=st.integers(1, 7),
    stride=st.integers(1, 9),
    extra=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    form=st.sampled_from(DENSE_FORMS),
    seed=st.integers(0, 99),
)
def test_products_and_sums_of_any_geometry(
    side: int, stride: int, extra: tuple[int, int], form: str, seed: int
) -> None:
    images = pixels(2, side + extra[0], side + extra[1], seed)
    kernel = np.random.default_rng(seed).standard_normal((side, side, 3, 4))
    builder = GraphBuilder("test")
    source: GridSource = FORMS[form](
        builder, builder.input("images", np.uint8, ["n", "h", "w", 3]), (side, side, 3), stride
    )
    for name, rows, dtype in (
        ("products", source.project(kernel), np.float32),
        ("sums", source.sums(), np.float64),
    ):
        restored, shape = source.restore(rows, (4,))
        builder.output(name, restored, dtype, shape)
    actual = OnnxModel(builder.build({}).SerializeToString()).run(images=images)
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    patches = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3).astype(np.float64)
    expected = np.einsum("nijyxc,yxcd->nijd", patches, kernel)
    assert actual["products"].shape == expected.shape
    assert np.abs(actual["products"] - expected).max() < 1e-5 * (1 + np.abs(expected).max())
    squares = (patches**2).sum(axis=(3, 4, 5))
    assert (actual["sums"][..., :3] == patches.sum(axis=(3, 4))).all()
    assert (actual["sums"][..., 3] == squares).all()


def test_a_geometry_without_common_blocks_has_two_forms() -> None:
    assert forms_of(64, 16) == ["patches", "conv", "space_to_depth"]
    assert forms_of(16, 12) == ["patches", "conv", "space_to_depth"]
    assert forms_of(16, 5) == ["patches", "conv"]


def test_the_graph_says_what_it_is(tmp_path: Path) -> None:
    report = export_truncated(
        patch_network(),
        {"descriptors": "hidden_1"},
        tmp_path / "dense.onnx",
        metadata={"classes": "[]"},
        real_images=pixels(4, 20, 20),
        dense=Dense(2, "conv"),
    )
    graph = onnx.load(report.path)
    assert [(item.domain, item.version) for item in graph.opset_import] == [("", 21)]
    assert graph.ir_version == 10
    model = OnnxModel(report.path)
    assert model.inputs == {"images": (-1, -1, -1, 3)}
    assert model.outputs == report.outputs == {"descriptors": (-1, -1, -1, 9)}
    stored = {name: model.metadata[name] for name in ("patch_size", "stride", "form", "classes")}
    assert stored == {"patch_size": "6", "stride": "2", "form": "conv", "classes": "[]"}
    # 64 patches of a 20 px image: 5 bytes a pixel value, 4 a value of each layer.
    assert int(model.metadata["workspace_bytes"]) > 64 * 5 * 108
    assert report.choice is not None
    assert report.choice.form == "conv"


def test_a_network_that_takes_no_square_patches_is_refused() -> None:
    source = keras.Input((4, 5, 3), dtype="uint8")
    model = keras.Model(source, keras.layers.Flatten(name="flat")(source))
    with pytest.raises(ExportError, match="square RGB patches"):
        build_dense(model, {"values": find_layer(model, "flat").output}, 2, "conv", {})


def test_the_fastest_form_is_chosen_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path))
    model = patch_network()
    tensors = {"values": layer_tensors(model)["hidden_1"]}
    graphs = {form: build_dense(model, tensors, 2, form, {}).SerializeToString() for form in FORMS}
    times = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(dense_module, "_milliseconds", lambda model, images: next(times))
    images = pixels(4, 20, 20)
    first = choose_form(graphs, images, "cpu")
    assert first.form == "conv"
    assert first.milliseconds == {"patches": 3.0, "conv": 1.0, "space_to_depth": 2.0}
    assert choose_form(graphs, images, "cpu") == first  # measuring again would run out of times
    with pytest.raises(StopIteration):
        choose_form(graphs, pixels(4, 24, 20), "cpu")
    (kept,) = (tmp_path / "forms").iterdir()
    kept.write_text("{")
    times = iter([1.0, 3.0, 2.0])
    assert choose_form(graphs, images, "cpu").form == "patches"


def test_auto_takes_a_form_that_exists() -> None:
    model = patch_network(whitening=0)
    tensors = {"values": layer_tensors(model)["hidden_2"]}
    part = keras.Model(model.inputs[0], tensors)
    _, choice, report = dense_module.export_dense(
        model,
        tensors,
        lambda images: {k: np.asarray(v) for k, v in part(images, training=False).items()},
        Dense(3),
        {},
        None,
        0,
        "fp32",
    )
    assert choice.form == "patches"
    assert report.max_relative_error["values"] < CLOSE


def test_a_wrong_dense_form_is_never_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = FORMS["conv"].project

    def shifted(self: Any, kernel: np.ndarray) -> str:
        return original(self, np.roll(kernel, 1, axis=1))

    monkeypatch.setattr(FORMS["conv"], "project", shifted)
    path = tmp_path / "wrong.onnx"
    with pytest.raises(ExportError, match="must agree with its network"):
        export_truncated(
            patch_network(),
            {"descriptors": ""},
            path,
            metadata={},
            real_images=None,
            dense=Dense(2, "conv"),
        )
    assert list(tmp_path.iterdir()) == []


def test_on_grid_takes_patches_row_by_row() -> None:
    images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    corners = on_grid(lambda patches: {"corner": patches[:, 0, 0]}, 2, 2)(images)["corner"]
    assert (corners == images[:, ::2, ::2]).all()


def test_row_cosines_by_hand() -> None:
    first = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    second = np.array([[0.0, 2.0], [6.0, 8.0], [0.0, 0.0], [1.0, 0.0]])
    assert row_cosines(first, second) == pytest.approx([0, 1, 1, 0])
