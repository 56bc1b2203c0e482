"""Export: every layer against Keras, names, folding, the fallback, and what is never written."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest

from scenetrack.config import ACTIVATIONS
from scenetrack.errors import ExportError, ModelError
from scenetrack.export import truncate, verify
from scenetrack.export.truncate import ExportReport, export_truncated, find_layer, layer_names
from scenetrack.export.verify import relative_error, verify_against_keras
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.networks.layers import ContrastNormalization, Whitening

L = keras.layers
SHAPE = (6, 5, 3)
# Far below the tolerance of the export itself: gelu's two forms differ by 1e-4 of a range.
CLOSE = 3e-6


def images(count: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def randomise(model: Any, seed: int = 3) -> Any:
    """Random weights everywhere: fresh batch normalisations and biases would hide mistakes."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        positive = "variance" in variable.path or "gamma" in variable.path
        low = 0.5 if positive else -1.0
        width = variable.shape[0] if len(variable.shape) > 1 else 1
        values = generator.uniform(low, 1.5, variable.shape) / np.sqrt(width)
        variable.assign(values)
    return model


def network(*layers: Any, dtype: str = "uint8") -> Any:
    """Input, Rescaling, Flatten and then ``layers``, one after the other."""
    source = keras.Input(SHAPE, dtype=dtype, name="images")
    values = L.Flatten(name="pixels")(L.Rescaling(1 / 64, offset=-2, name="rescaling")(source))
    for layer in layers:
        values = layer(values)
    return randomise(keras.Model(source, values, name="net"))


def mlp() -> Any:
    return network(
        L.Dense(7, use_bias=False, name="dense_1"),
        L.BatchNormalization(name="batch_norm_1"),
        L.Activation("gelu", name="hidden_1"),
        L.Dropout(0.4, name="dropout_1"),
        L.Dense(4, name="logits"),
        L.Activation("softmax", name="probabilities"),
    )


def export(model: Any, path: Path, outputs: Mapping[str, str]) -> ExportReport:
    return export_truncated(model, outputs, path, metadata={}, real_images=images(9))


def assert_equal_to_keras(model: Any, path: Path, layer: str) -> ExportReport:
    """Export up to ``layer`` and compare at batch sizes 1 and 5 with Keras' own prediction."""
    report = export(model, path / "net.onnx", {"values": layer})
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    runtime = OnnxModel(path / "net.onnx", device="cpu", threads=1)
    for count in (1, 5):
        expected = np.asarray(part(images(count), training=False))
        actual = runtime.run(images=images(count))["values"]
        assert np.ptp(expected) > 0
        assert relative_error(expected, actual) < CLOSE
    return report


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "linear", "softmax"])
@pytest.mark.parametrize("fused", [True, False])
def test_every_activation(activation: str, fused: bool, tmp_path: Path) -> None:
    if fused:
        model = network(L.Dense(9, activation=activation, name="last"))
    else:
        model = network(L.Dense(9), L.Activation(activation, name="last"))
    assert assert_equal_to_keras(model, tmp_path, "last").builder == "direct"


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Activation(partial(keras.activations.gelu, approximate=True), name="last"),
        lambda: L.ReLU(name="last"),
        lambda: L.ReLU(max_value=1.5, name="last"),
        lambda: L.ReLU(negative_slope=0.05, name="last"),
        lambda: L.LeakyReLU(name="last"),
        lambda: L.LeakyReLU(negative_slope=0.01, name="last"),
        lambda: L.ELU(alpha=0.7, name="last"),
        lambda: L.Softmax(name="last"),
        lambda: L.BatchNormalization(epsilon=0.2, name="last"),
        lambda: L.BatchNormalization(center=False, name="last"),
        lambda: L.BatchNormalization(scale=False, name="last"),
        lambda: L.LayerNormalization(epsilon=0.1, name="last"),
        lambda: L.LayerNormalization(center=False, scale=False, name="last"),
        lambda: L.Dropout(0.9, name="last"),
        lambda: L.GaussianNoise(0.9, name="last"),
        lambda: L.Reshape((2, -1), name="last"),
        lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], offset=0.5, name="last"),
    ],
)
@pytest.mark.parametrize("before", ["tanh", "linear"])
def test_every_layer(layer: Callable[[], Any], before: str, tmp_path: Path) -> None:
    model = network(L.Dense(8, activation=before), layer())
    assert assert_equal_to_keras(model, tmp_path, "last").builder == "direct"


def test_image_layers_own_layers_and_merges(tmp_path: Path) -> None:
    source = keras.Input(SHAPE, dtype="uint8")
    scaled = L.Rescaling(1 / 64, offset=-2)(L.RandomFlip("horizontal")(source))
    whitened = Whitening(5)(L.Flatten()(ContrastNormalization(10.0)(source)))
    colour = L.GlobalAveragePooling2D()(scaled)
    merged = L.Concatenate(name="merged")([whitened, colour])
    left, right = L.Dense(6)(merged), L.Dense(6, activation="relu")(merged)
    model = randomise(keras.Model(source, L.Add(name="sum")([left, right])))
    assert assert_equal_to_keras(model, tmp_path, "merged").builder == "direct"
    assert assert_equal_to_keras(model, tmp_path, "sum").builder == "direct"


def test_layer_called_twice_and_nested_networks(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8,)), L.Dense(8), L.BatchNormalization(), L.ELU()])
    shared = L.Dense(8, activation="tanh")
    model = network(L.Dense(8), shared, inner, shared, L.Dense(3, name="last"))
    assert assert_equal_to_keras(model, tmp_path, "last").builder == "direct"


def test_sequential_of_float_images(tmp_path: Path) -> None:
    model = randomise(
        keras.Sequential(
            [keras.Input(SHAPE), L.Rescaling(1 / 255), L.Flatten(), L.Dense(4, name="last")]
        )
    )
    assert assert_equal_to_keras(model, tmp_path, "last").builder == "direct"


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_batch_norm_folds_into_its_dense(tmp_path: Path) -> None:
    model = mlp()
    assert_equal_to_keras(model, tmp_path, "hidden_1")
    wanted = ["Flatten", "Cast", "MatMul", "Add", "Gelu", "Identity"]
    assert operators(tmp_path / "net.onnx") == wanted


def test_batch_norm_does_not_fold_when_its_dense_is_wanted_itself(tmp_path: Path) -> None:
    model = mlp()
    export(model, tmp_path / "both.onnx", {"before": "dense_1", "after": "batch_norm_1"})
    results = OnnxModel(tmp_path / "both.onnx", device="cpu", threads=1).run(images=images(5))
    for name, layer in (("before", "dense_1"), ("after", "batch_norm_1")):
        part = keras.Model(model.inputs[0], model.get_layer(layer).output)
        expected = np.asarray(part(images(5), training=False))
        assert relative_error(expected, results[name]) < CLOSE


def test_two_outputs_metadata_and_versions(tmp_path: Path) -> None:
    model, path = mlp(), tmp_path / "folder" / "net.onnx"
    outputs = {"descriptors": "", "logits": "logits", "probabilities": "probabilities"}
    report = export_truncated(
        model, outputs, path, metadata={"classes": "coast,forest"}, real_images=None
    )
    stored = onnx.load(path)
    assert (stored.ir_version, stored.opset_import[0].version) == (10, 21)
    runtime = OnnxModel(path, device="cpu", threads=1)
    assert runtime.metadata == {"classes": "coast,forest"}
    assert runtime.inputs == {"images": (-1, *SHAPE)}
    shapes = {"descriptors": (-1, 7), "logits": (-1, 4), "probabilities": (-1, 4)}
    assert runtime.outputs == report.outputs == shapes
    assert report.path == path
    assert set(report.errors) == set(outputs)
    assert all(0 <= error <= verify.TOLERANCE for error in report.errors.values())
    results = runtime.predict(images(11), 4)
    np.testing.assert_allclose(results["probabilities"].sum(axis=1), np.ones(11), rtol=1e-5)
    odds = np.exp(results["logits"])
    softmax = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(results["probabilities"], softmax, rtol=1e-5)


def test_layers_are_listed_with_their_shapes() -> None:
    assert layer_names(mlp()) == [
        ("rescaling", "Rescaling", (None, 6, 5, 3)),
        ("pixels", "Flatten", (None, 90)),
        ("dense_1", "Dense", (None, 7)),
        ("batch_norm_1", "BatchNormalization", (None, 7)),
        ("hidden_1", "Activation", (None, 7)),
        ("dropout_1", "Dropout", (None, 7)),
        ("logits", "Dense", (None, 4)),
        ("probabilities", "Activation", (None, 4)),
    ]


def test_last_hidden_layer() -> None:
    assert find_layer(mlp(), "").name == "hidden_1"
    fused = network(L.Dense(5, activation="relu", name="h"), L.Dense(3, activation="softmax"))
    assert find_layer(fused, "").name == "h"
    source = keras.Input(SHAPE)
    flat = L.Flatten()(source)
    merged = L.Concatenate(name="merged")([L.Dense(2)(flat), L.Dense(3)(flat)])
    assert find_layer(keras.Model(source, L.Dense(4)(L.Dropout(0.1)(merged))), "").name == "merged"


def test_network_without_hidden_layer_is_told_so() -> None:
    source = keras.Input((4,))
    with pytest.raises(ModelError, match="no hidden layer before a last Dense one: name a layer"):
        find_layer(keras.Model(source, L.Dense(2)(source)), "")
    with pytest.raises(ModelError, match="no hidden layer"):
        find_layer(keras.Model(source, L.ReLU()(source)), "")


def test_unknown_layer_lists_the_layers() -> None:
    with pytest.raises(ModelError) as caught:
        find_layer(mlp(), "hiden_1")
    assert str(caught.value) == (
        "layer must be one of: rescaling, pixels, dense_1, batch_norm_1, hidden_1, dropout_1, "
        "logits, probabilities. Received: 'hiden_1'; did you mean 'hidden_1'?"
    )


def test_other_kinds_of_model_are_refused(tmp_path: Path) -> None:
    class Subclassed(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    two = [keras.Input((2,)), keras.Input((2,))]
    for model in (Subclassed(), keras.Sequential([L.Dense(2)]), keras.Model(two, L.Add()(two))):
        with pytest.raises(ModelError, match="functional or built Sequential Keras model with one"):
            layer_names(model)


def test_wrong_weight_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = truncate._build_direct

    def spoilt(*args: Any) -> Any:
        graph = build(*args)
        assert graph is not None
        kernel = next(item for item in graph.graph.initializer if "kernel" in item.name)
        values = onnx.numpy_helper.to_array(kernel) + np.float32(0.01)
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
        return graph

    monkeypatch.setattr(truncate, "_build_direct", spoilt)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the file that was there")
    with pytest.raises(ExportError, match=r"'values' differs by .* nothing was written") as caught:
        export(mlp(), path, {"values": "hidden_1"})
    assert "\n" not in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == b"the file that was there"


def test_real_images_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"uint8 \[any, 6, 5, 3\]. Received: uint8 \[1, 8, 8, 3\]"):
        export_truncated(
            mlp(),
            {"values": "logits"},
            tmp_path / "net.onnx",
            metadata={},
            real_images=images(2, (8, 8, 3)),
        )
    assert list(tmp_path.iterdir()) == []


def convolutional(activation: str = "relu") -> Any:
    source = keras.Input(SHAPE, dtype="uint8", name="images")
    values = L.Conv2D(4, 3, activation=activation, name="conv")(L.Rescaling(1 / 255)(source))
    values = L.GlobalAveragePooling2D(name="pooled")(values)
    return randomise(keras.Model(source, L.Dense(3, name="logits")(values), name="cnn"))


# tf2onnx and the SavedModel that Keras' exporter goes through are not ours to mend.
exporter_warnings = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@exporter_warnings
def test_unknown_layers_go_through_keras_exporter(tmp_path: Path) -> None:
    model, path = convolutional(), tmp_path / "cnn.onnx"
    report = export_truncated(
        model,
        {"descriptors": "pooled", "logits": "logits"},
        path,
        metadata={"layer": "pooled"},
        real_images=images(9),
    )
    assert report.builder == "keras"
    assert report.outputs == {"descriptors": (-1, 4), "logits": (-1, 3)}
    stored = onnx.load(path)
    assert [(item.domain, item.version) for item in stored.opset_import] == [("", 21)]
    assert stored.ir_version == 10
    runtime = OnnxModel(path, device="cpu", threads=1)
    assert (set(runtime.inputs), set(runtime.outputs)) == ({"images"}, {"descriptors", "logits"})
    assert runtime.metadata == {"layer": "pooled"}
    for count in (1, 5):
        expected = np.asarray(model(images(count)))
        assert relative_error(expected, runtime.run(images=images(count))["logits"]) < 1e-5


@exporter_warnings
def test_invalid_graph_of_keras_exporter_is_not_written(tmp_path: Path) -> None:
    # It reports success for gelu and writes an operator that ONNX does not have.
    with pytest.raises(ExportError, match=r"checker refuses 'cnn': .*Erfc") as caught:
        export(convolutional("gelu"), tmp_path / "cnn.onnx", {"values": "pooled"})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def keras_operation() -> Any:
    source = keras.Input(SHAPE, dtype="uint8")
    values = L.Dense(3)(L.Flatten()(L.Rescaling(1.0)(source)))
    return randomise(keras.Model(source, L.Activation("relu", name="last")(values + 1.0)))


@exporter_warnings
def test_operations_are_not_taken_for_layers_of_the_same_name(tmp_path: Path) -> None:
    assert assert_equal_to_keras(keras_operation(), tmp_path, "last").builder == "keras"


@exporter_warnings
def test_layer_that_cannot_be_exported_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ValueError("no kernel\nfor this layer")

    monkeypatch.setattr(keras.Model, "export", broken)
    with pytest.raises(ExportError, match=r"fails for 'cnn' \(no kernel for this layer\): replace"):
        export(convolutional(), tmp_path / "cnn.onnx", {"values": "pooled"})
    assert list(tmp_path.iterdir()) == []


def test_relative_error_by_hand() -> None:
    expected = np.array([0.0, 10.0], np.float32)
    assert relative_error(expected, np.array([0.5, 10.0], np.float32)) == 0.05
    assert relative_error(np.full(2, 4.0), np.array([4.0, 5.0])) == 0.25
    assert relative_error(np.zeros(2), np.array([0.0, 0.125])) == 0.125
    assert relative_error(np.zeros((2, 1)), np.zeros(2)) == float("inf")
    assert relative_error(expected, np.array([0.0, np.nan])) == float("inf")
    assert relative_error(np.array([0.0, np.inf]), expected) == float("inf")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_fail_the_verification(bad: float, tmp_path: Path) -> None:
    export(mlp(), tmp_path / "net.onnx", {"values": "logits"})

    def predict(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": np.full((len(batch), 4), bad, np.float32)}

    with pytest.raises(ExportError, match="'values' differs by inf at batch size 1"):
        verify_against_keras(tmp_path / "net.onnx", predict, None, 0)


def test_verification_sees_random_and_real_images_at_two_sizes(tmp_path: Path) -> None:
    export(mlp(), tmp_path / "net.onnx", {"values": "logits"})
    runtime = OnnxModel(tmp_path / "net.onnx", device="cpu", threads=1)
    seen: list[np.ndarray] = []

    def predict(batch: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(batch)
        return runtime.run(images=batch)

    report = verify_against_keras(tmp_path / "net.onnx", predict, images(9), 5)
    assert [len(batch) for batch in seen] == [1, 7, 1, 7]
    np.testing.assert_array_equal(seen[3], images(9)[:7])
    assert not np.array_equal(seen[1], images(9)[:7])
    assert report.max_relative_error == {"values": 0.0}
    assert report.batch_sizes == (1, 7)
