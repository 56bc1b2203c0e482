"""OnnxModel: what it says of a model, batching, streams and one-line errors."""

import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenetrack import runtime
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.graph import GraphBuilder
from scenetrack.runtime import OnnxModel


def sums_model() -> bytes:
    """Images uint8 [N, 4, 4, 3] -> sums [N] and their doubled pixels [N, 48]."""
    builder = GraphBuilder("sums")
    images = builder.input("images", np.uint8, ["batch", 4, 4, 3])
    values = builder.node("Cast", images, to=1)
    flat = builder.node("Flatten", values)
    axes = builder.constant("axes", np.array([1], np.int64))
    total = builder.node("ReduceSum", flat, axes, keepdims=0)
    builder.output("sums", total, np.float32, ["batch"])
    builder.output("doubled", builder.node("Add", flat, flat), np.float32, ["batch", 48])
    content: bytes = builder.build({"layer": "hidden_1"}).SerializeToString()
    return content


@pytest.fixture(scope="module")
def model() -> OnnxModel:
    return OnnxModel(sums_model(), device="cpu", threads=1)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 4, 3), np.uint8)


def test_model_describes_itself(model: OnnxModel) -> None:
    assert model.inputs == {"images": (-1, 4, 4, 3)}
    assert model.outputs == {"sums": (-1,), "doubled": (-1, 48)}
    assert model.metadata == {"layer": "hidden_1"}
    assert model.provider == "CPUExecutionProvider"


def test_path_and_bytes_give_the_same(model: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "sums.onnx"
    path.write_bytes(sums_model())
    images = random_images(3)
    for source in (path, str(path)):
        results = OnnxModel(source, device="cpu", threads=1).run(images=images)
        np.testing.assert_array_equal(results["sums"], model.run(images=images)["sums"])


@pytest.mark.parametrize("count", [1, 6, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
def test_predict_equals_numpy_in_order(
    model: OnnxModel, count: int, batch_size: int | None
) -> None:
    images = random_images(count)
    results = model.predict(images, batch_size)
    flat = images.reshape(count, 48).astype(np.float32)
    np.testing.assert_array_equal(results["sums"], flat.sum(axis=1))
    np.testing.assert_array_equal(results["doubled"], 2 * flat)


def test_no_images_give_empty_outputs(model: OnnxModel) -> None:
    results = model.predict(random_images(0))
    assert {name: values.shape for name, values in results.items()} == {
        "sums": (0,),
        "doubled": (0, 48),
    }
    assert results["sums"].dtype == np.float32


def test_chosen_batches_bound_the_memory(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # 48 input values, 1 sum and 48 doubled ones make 97 float32, 388 bytes an image.
    monkeypatch.setattr(runtime, "BATCH_BYTES", 2 * 388 + 1)
    sizes: list[int] = []
    run = model.run

    def watched(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(inputs["images"]))
        return run(**inputs)

    monkeypatch.setattr(model, "run", watched)
    model.predict(random_images(5))
    assert sizes == [2, 2, 1]


def test_batches_hold_at_least_one_image(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BATCH_BYTES", 1)
    assert model.predict(random_images(2))["sums"].shape == (2,)


def test_predict_reads_memory_maps(model: OnnxModel, tmp_path: Path) -> None:
    images = random_images(5)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(model.predict(mapped, 2)["sums"], model.predict(images)["sums"])


def test_stream_draws_a_batch_when_its_turn_comes(model: OnnxModel) -> None:
    drawn: list[int] = []

    def batches() -> Iterator[np.ndarray]:
        for count in (2, 3):
            drawn.append(count)
            yield random_images(count)

    stream = model.stream(batches())
    assert drawn == []
    assert next(stream)["sums"].shape == (2,)
    assert drawn == [2]
    assert next(stream)["sums"].shape == (3,)
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: model.predict(np.zeros((2, 4, 4, 3), np.float32)),
            r"'images' is uint8 \[any, 4, 4, 3\]. Received: float32 \[2, 4, 4, 3\]",
        ),
        (
            lambda model: model.predict(np.zeros((2, 5, 4, 3), np.uint8)),
            r"Received: uint8 \[2, 5, 4, 3\]",
        ),
        (lambda model: model.predict(np.zeros((4, 4, 3), np.uint8)), r"Received: uint8 \[4, 4"),
        (
            lambda model: model.run(pictures=np.zeros((1, 4, 4, 3), np.uint8)),
            r"takes the inputs \['images'\]. Received: \['pictures'\]",
        ),
    ],
)
def test_wrong_inputs_give_one_line(
    model: OnnxModel, call: Callable[[OnnxModel], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        call(model)


def test_predict_needs_a_single_input() -> None:
    builder = GraphBuilder("two")
    names = [builder.input(name, np.float32, [None]) for name in ("a", "b")]
    builder.output("c", builder.node("Add", *names), np.float32, [None])
    model = OnnxModel(builder.build({}).SerializeToString(), device="cpu", threads=1)
    with pytest.raises(ModelError, match=r"takes \['a', 'b'\]"):
        model.predict(np.zeros(3, np.float32))
    one = np.ones(2, np.float32)
    np.testing.assert_array_equal(model.run(a=one, b=one)["c"], [2, 2])


def test_missing_and_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is none at .*absent\.onnx"):
        OnnxModel(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(sums_model()[:-200])
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be read") as caught:
        OnnxModel(broken)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="these bytes cannot be read"):
        OnnxModel(b"no model")


def test_unknown_device() -> None:
    with pytest.raises(ModelError, match=r"one of: auto, cpu, gpu. Received: 'tpu'"):
        OnnxModel(sums_model(), device="tpu")


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make importlib.metadata see these distributions and no others."""

    def distribution(name: str) -> object:
        if name in names:
            return object()
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def test_two_runtimes_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(ScenetrackError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        OnnxModel(sums_model())


def test_no_runtime_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ScenetrackError, match=r"not installed: pip install 'scenetrack\[cpu\]'"):
        OnnxModel(sums_model())


def test_emptied_runtime_is_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(ScenetrackError, match="installation is broken"):
        OnnxModel(sums_model())


class FakeSession:
    """A session on the CPU, whatever was asked for: a GPU build on a machine without one."""

    def __init__(self, model: object, options: object, providers: list[object]) -> None:
        self.asked = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs

    def get_modelmeta(self) -> Any:
        return types.SimpleNamespace(custom_metadata_map={})


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = types.ModuleType("onnxruntime")
    fake.InferenceSession = FakeSession
    fake.SessionOptions = types.SimpleNamespace
    fake.set_default_logger_severity = lambda level: None
    fake.preload_dlls = lambda: print("libcudart is missing")
    fake.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    install(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)


@pytest.mark.usefixtures("gpu_build")
def test_listed_but_dead_gpu_is_not_believed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert OnnxModel(b"model", device="auto").provider == "CPUExecutionProvider"
    assert "CUDAExecutionProvider did not start: running on the CPU" in caplog.text
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("gpu_build")
def test_insisting_on_a_dead_gpu_fails() -> None:
    with pytest.raises(ScenetrackError, match=r"the GPU is required, but .* runs on CPUExecution"):
        OnnxModel(b"model", device="gpu")


@pytest.mark.usefixtures("gpu_build")
def test_cpu_is_not_offered_the_gpu(caplog: pytest.LogCaptureFixture) -> None:
    OnnxModel(b"model", device="cpu")
    assert caplog.text == ""
