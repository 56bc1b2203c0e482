"""OnnxModel: inputs and outputs, devices, batch sizes, streams and one-line errors."""

import importlib.metadata
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.graphs import providers, runtime
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.files import ModelFile
from scenetrack.graphs.providers import CPU, CUDA, TENSORRT, TENSORRT_SWITCH
from scenetrack.graphs.runtime import OnnxModel


def sums_model(metadata: dict[str, str] | None = None) -> bytes:
    """Images uint8 [N, 4, 4, 3] -> sums [N] and their doubled pixels [N, 48]."""
    builder = GraphBuilder("sums")
    images = builder.input("images", np.uint8, ["batch", 4, 4, 3])
    values = builder.node("Cast", images, to=1)
    flat = builder.node("Flatten", values)
    axes = builder.constant("axes", np.array([1], np.int64))
    total = builder.node("ReduceSum", flat, axes, keepdims=0)
    builder.output("sums", total, np.float32, ["batch"])
    builder.output("doubled", builder.node("Add", flat, flat), np.float32, ["batch", 48])
    content: bytes = builder.build(metadata or {"layer": "hidden_1"}).SerializeToString()
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


def recorded_batches(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the batches that ``predict`` runs from now on."""
    lengths: list[int] = []
    run = OnnxModel.run

    def recording(self: OnnxModel, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        lengths.append(len(inputs["images"]))
        return run(self, **inputs)

    monkeypatch.setattr(OnnxModel, "run", recording)
    return lengths


def test_chosen_batches_bound_the_memory(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # 48 pixels, 1 sum and 48 doubled ones make 97 values of an estimated 12 bytes each.
    monkeypatch.setattr(model, "memory", 2 * 97 * 12 + 1)
    lengths = recorded_batches(model, monkeypatch)
    model.predict(random_images(5))
    assert lengths == [2, 2, 1]


@pytest.mark.parametrize(
    ("memory", "workspace", "expected"),
    [
        # 48 bytes of pixels, 4 of the sum and 192 of the doubled pixels are 244.
        (1000 + 244, 1000, 1),
        (2 * (1000 + 244), 1000, 2),
        (2 * (1000 + 244) - 1, 1000, 1),
        (12 * 97 * 7, 0, 7),
        (1, 10**12, 1),
        (2**60, 1, runtime.LARGEST_BATCH),
    ],
)
def test_batch_size_by_hand(memory: int, workspace: int, expected: int) -> None:
    model = OnnxModel(sums_model(), device="cpu", threads=1, memory=memory)
    assert model.batch_size((4, 4, 3), workspace) == expected


# Without a usable number the estimate is 12 bytes per value: 97 of them are 1164.
@pytest.mark.parametrize(
    ("text", "expected"), [("1000", 2), ("", 2), ("-1", 2), ("many", 2), ("²", 2), ("5000", 1)]
)
def test_workspace_of_the_metadata_counts(text: str, expected: int) -> None:
    content = sums_model({"workspace_bytes": text})
    model = OnnxModel(content, device="cpu", threads=1, memory=2 * (1000 + 244))
    assert model.batch_size((4, 4, 3)) == expected


@pytest.mark.parametrize(("grid", "images"), [(7, 16), (25, 1)])
def test_default_memory_suits_dense_networks(grid: int, images: int) -> None:
    """64 px patches at stride 32 and 8 of a 256 px image: figures of export.dense."""
    patches, layers = grid**2, 12288 + 1024 + 512
    workspace = patches * (5 * 12288 + 4 * layers)
    model = OnnxModel(sums_model(), device="cpu", threads=1)
    assert images <= model.batch_size((256, 256, 3), workspace) < 2 * images


def test_predict_reads_memory_maps(model: OnnxModel, tmp_path: Path) -> None:
    images = random_images(5)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(model.predict(mapped, 2)["sums"], model.predict(images)["sums"])


class Source:
    """Batches that tell which of them were drawn, and by which thread; may break at one."""

    def __init__(self, counts: Sequence[int], broken: int | None = None) -> None:
        self.counts = counts
        self.broken = broken
        self.drawn: list[int] = []
        self.threads: set[str] = set()
        self.closed = False

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for count in self.counts:
                if count == self.broken:
                    raise OSError("the disk is gone")
                self.drawn.append(count)
                self.threads.add(threading.current_thread().name)
                yield random_images(count)
        finally:
            self.closed = True


def drawing_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("batches")]


def test_stream_keeps_the_order_and_draws_in_a_thread(model: OnnxModel) -> None:
    source = Source([2, 3, 1, 5])
    results = list(model.stream(source))
    for count, result in zip(source.counts, results, strict=True):
        images = random_images(count)
        np.testing.assert_array_equal(result["sums"], images.reshape(count, -1).sum(axis=1))
    assert source.threads == {"batches_0"}
    assert drawing_threads() == []


def test_stream_draws_one_batch_ahead_and_no_more(
    model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source([1, 2, 3, 4])
    run, second = OnnxModel.run, threading.Event()

    def running(self: OnnxModel, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        # The next batch can be drawn before this one is done, or this waits for ever.
        while len(inputs["images"]) < 4 and source.drawn[-1] == len(inputs["images"]):
            second.wait(0.001)
        return run(self, **inputs)

    monkeypatch.setattr(OnnxModel, "run", running)
    stream = model.stream(source)
    assert source.drawn == []
    for count in (1, 2, 3):
        assert len(next(stream)["sums"]) == count
        assert source.drawn == list(range(1, count + 2))
    assert [len(result["sums"]) for result in stream] == [4]


def test_closing_a_stream_stops_its_thread(model: OnnxModel) -> None:
    source = Source(range(1, 100))
    stream = model.stream(source)
    next(stream)
    stream.close()
    assert len(source.drawn) <= 2
    assert source.closed
    assert drawing_threads() == []


def test_what_a_source_raises_comes_in_its_turn(model: OnnxModel) -> None:
    stream = model.stream(Source([2, 3, 4], broken=4))
    assert [len(next(stream)["sums"]) for _ in range(2)] == [2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert drawing_threads() == []


def test_an_interrupt_ends_a_stream(model: OnnxModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: OnnxModel, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    monkeypatch.setattr(OnnxModel, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(model.stream(Source([1, 2, 3])))
    assert drawing_threads() == []


def test_empty_stream(model: OnnxModel) -> None:
    assert list(model.stream([])) == []


def test_bound_run_equals_plain_run(model: OnnxModel) -> None:
    """What runs on a GPU, run on the CPU."""
    images = random_images(3)
    names = list(model.outputs)
    bound = runtime._run_bound(model._session, {"images": images}, names, None)
    for name, values in zip(names, bound, strict=True):
        np.testing.assert_array_equal(values, model.run(images=images)[name])


def test_staging_fills_two_buffers_in_turn() -> None:
    locked: list[int] = []
    staging = runtime._Staging(lambda array: locked.append(array.nbytes))
    batches = [random_images(count) for count in (3, 3, 2, 4)]
    first, second = staging(batches[0]), staging(batches[1])
    np.testing.assert_array_equal(first, batches[0])
    np.testing.assert_array_equal(second, batches[1])
    third = staging(batches[2])
    assert np.shares_memory(third, first)
    assert not np.shares_memory(third, second)
    np.testing.assert_array_equal(third, batches[2])
    np.testing.assert_array_equal(staging(batches[3]), batches[3])
    assert locked == [144, 144, 192]
    floats = staging(np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1])
    np.testing.assert_array_equal(floats, [[2, 1, 0], [5, 4, 3]])
    assert floats.flags.c_contiguous


def test_threads_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available_cpus", lambda: 3)
    for threads, expected in ((None, 3), (2, 2)):
        model = OnnxModel(sums_model(), device="cpu", threads=threads)
        assert model._session.get_session_options().intra_op_num_threads == expected


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
    ones = np.ones(2, np.float32)
    np.testing.assert_array_equal(model.run(a=ones, b=ones)["c"], [2, 2])


def test_missing_and_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is none at .*absent\.onnx"):
        OnnxModel(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(sums_model()[:-200])
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be read") as caught:
        OnnxModel(broken)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="this model in memory cannot be read"):
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
    """A session of a GPU build, on a machine where only some providers start."""

    starting: ClassVar[set[str]] = set()
    failing: ClassVar[set[str]] = set()
    asked: ClassVar[list[list[str]]] = []
    options: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(
        self, model: bytes, options: object, providers: list[Any], enable_fallback: int
    ) -> None:
        assert enable_fallback == 0
        names = [item if isinstance(item, str) else item[0] for item in providers]
        self.asked.append(names)
        self.options.update(item for item in providers if not isinstance(item, str))
        if self.failing & set(names):
            raise RuntimeError("no engine")
        self._providers = [name for name in names if name in {*self.starting, CPU}]

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="images", shape=["n", 2], type="tensor(uint8)")]

    def get_outputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="sums", shape=["n"], type="tensor(float)")]

    def get_modelmeta(self) -> Any:
        return types.SimpleNamespace(custom_metadata_map={})

    def io_binding(self) -> "FakeBinding":
        return FakeBinding()

    def run_with_iobinding(self, binding: "FakeBinding", options: object) -> None:
        binding.sums = binding.images.sum(axis=1).astype(np.float32)


class FakeBinding:
    """Keeps the bound array itself, as a GPU would read it where it lies."""

    images: np.ndarray
    sums: np.ndarray

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        assert name == "images"
        self.images = array

    def bind_output(self, name: str, device_type: str) -> None:
        assert (name, device_type) == ("sums", "cpu")

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [self.sums]


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeSession]:
    fake: Any = types.ModuleType("onnxruntime")
    fake.InferenceSession = FakeSession
    fake.RunOptions = types.SimpleNamespace
    fake.SessionOptions = lambda: types.SimpleNamespace(add_session_config_entry=lambda *_: None)
    fake.set_default_logger_severity = lambda level: None
    fake.preload_dlls = lambda: print("libcudart is missing")
    fake.get_available_providers = lambda: [TENSORRT, CUDA, CPU]
    fake.cuda_version = "12.8"
    install(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path))
    monkeypatch.delenv(TENSORRT_SWITCH, raising=False)
    for name, empty in (("starting", set()), ("failing", set()), ("asked", []), ("options", {})):
        monkeypatch.setattr(FakeSession, name, empty)
    return FakeSession


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


@pytest.mark.parametrize(("device", "warned"), [("auto", ["INFO"]), ("gpu", ["INFO", "WARNING"])])
@pytest.mark.usefixtures("gpu_build")
def test_listed_but_dead_gpu_is_not_believed(
    device: str,
    warned: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    model = OnnxModel(sums_model(), device=device)
    assert (model.provider, model.memory) == (CPU, runtime.CPU_MEMORY)
    assert f"{CUDA} did not start: running on {CPU}" in caplog.text
    assert levels(caplog) == warned
    assert capsys.readouterr().out == ""


def test_gpu_that_fails_gives_way(
    gpu_build: type[FakeSession], caplog: pytest.LogCaptureFixture
) -> None:
    gpu_build.failing = {CUDA}
    caplog.set_level("INFO")
    assert OnnxModel(sums_model()).provider == CPU
    assert gpu_build.asked == [[CUDA, CPU], [CPU]]
    assert f"{CUDA} did not start: no engine" in caplog.text


@pytest.mark.parametrize("device", ["auto", "gpu", "cpu"])
@pytest.mark.usefixtures("gpu_build")
def test_requiring_a_dead_gpu_fails(device: str) -> None:
    with pytest.raises(ScenetrackError, match=r"the GPU is required, but .* runs on CPUExecution"):
        OnnxModel(sums_model(), device=device, require_gpu=True)


def test_cpu_is_not_offered_the_gpu(
    gpu_build: type[FakeSession], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    OnnxModel(sums_model(), device="cpu")
    assert gpu_build.asked == [[CPU]]
    assert caplog.text == ""


@pytest.mark.parametrize("device", ["auto", "gpu"])
def test_gpu_runs_bound_and_staged(
    device: str, gpu_build: type[FakeSession], caplog: pytest.LogCaptureFixture
) -> None:
    gpu_build.starting = {CUDA, TENSORRT}
    caplog.set_level("INFO")
    model = OnnxModel(sums_model(), device=device, require_gpu=True)
    assert (model.provider, model.memory) == (CUDA, runtime.GPU_MEMORY)
    assert gpu_build.options == {CUDA: {"use_tf32": "0"}}
    images = np.random.default_rng(0).integers(0, 256, (23, 2), np.uint8)
    np.testing.assert_array_equal(model.predict(images, 4)["sums"], images.sum(axis=1))
    np.testing.assert_array_equal(model.run(images=images)["sums"], images.sum(axis=1))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("switch", "starting", "failing", "provider"),
    [
        ("1", {TENSORRT, CUDA}, set(), TENSORRT),
        ("1", {CUDA}, set(), CUDA),
        ("1", {CUDA}, {TENSORRT}, CUDA),
        ("1", set(), {TENSORRT}, CPU),
        ("0", {TENSORRT, CUDA}, set(), CUDA),
    ],
)
def test_tensorrt_when_switched_on_and_started(
    switch: str,
    starting: set[str],
    failing: set[str],
    provider: str,
    gpu_build: type[FakeSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TENSORRT_SWITCH, switch)
    gpu_build.starting, gpu_build.failing = starting, failing
    assert OnnxModel(sums_model()).provider == provider


def test_tensorrt_keeps_engines_apart_by_weights(
    gpu_build: type[FakeSession], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TENSORRT_SWITCH, "1")
    gpu_build.starting = {TENSORRT}
    folders = set()
    for trained in ("first", "second", "first"):
        OnnxModel(sums_model({"run": trained}))
        folders.add(gpu_build.options[TENSORRT]["trt_engine_cache_path"])
    assert len(folders) == 2
    assert all(Path(folder).is_relative_to(tmp_path) for folder in folders)
    # Weights outside the file are not in its digest.
    outside = providers._tensorrt_options(ModelFile(b"", tmp_path))
    assert "trt_engine_cache_enable" not in outside
