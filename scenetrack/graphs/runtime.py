"""Runs ONNX models: device, threads, memory and batches. The only importer of onnxruntime."""

from __future__ import annotations

import importlib.metadata
import io
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from scenetrack.config.base import DEVICES
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.graphs.files import IN_MEMORY, ModelFile, check_model_file, one_line
from scenetrack.graphs.providers import CPU, Providers, provider_lists
from scenetrack.system.files import printable
from scenetrack.system.machine import available_cpus, page_lock

logger = logging.getLogger(__name__)

INSTALL = "pip install 'scenetrack[cpu]' (or 'scenetrack[gpu]' for an NVIDIA GPU)"

# Bytes that one batch may take. On 2 cores a dense 64 px network 1024-512 gained nothing from
# more than 16 images a batch at stride 32 and one at stride 8, and an MLP nothing from more than
# 256; a GPU needs larger products to be busy.
CPU_MEMORY = 96 * 2**20
GPU_MEMORY = 2**30
LARGEST_BATCH = 256
# Of a network that does not say what lies between its input and its outputs, for each of their
# values: both as float32, and twice as much again.
UNTOLD_BYTES = 12
WORKSPACE = "workspace_bytes"
# Python reads no numbers of thousands of digits, and no machine has so many bytes.
_DIGITS = 20
FATAL = 4

DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


class OnnxModel:
    """An ONNX model ready to run.

    Nothing in the model is executed but its operators: see ``onnx_files`` for what is refused.

    Args:
        source: path of an ``.onnx`` file, or its bytes.
        device: "cpu"; "gpu" or "auto", CUDA where it really starts, else the CPU, of which "gpu"
            warns. With ``SCENETRACK_TENSORRT=1`` in the environment TensorRT goes before
            CUDA, where its libraries are installed; its engines are kept in the cache.
        require_gpu: fail rather than fall back to the CPU.
        threads: threads within an operator; None takes the processors that this process may use.
        memory: bytes that a batch may take; None chooses for the device.

    Attributes:
        inputs: shape by input name, with -1 where any length is accepted.
        outputs: shape by output name, likewise.
        metadata: the model's own keys and values. ``workspace_bytes`` are those of an image's
            tensors between input and output.
        provider: the execution provider that the session really uses.
        memory: bytes that a batch may take.

    Raises:
        ModelError: the file is missing, no valid ONNX model, or one that may not be loaded.
        ScenetrackError: ONNX Runtime is not installed, is installed twice, or the GPU that is
            required does not start.
    """

    def __init__(
        self,
        source: Path | str | bytes,
        *,
        device: str = "auto",
        require_gpu: bool = False,
        threads: int | None = None,
        memory: int | None = None,
    ) -> None:
        if device not in DEVICES:
            raise ModelError(f"device must be one of: {', '.join(DEVICES)}. Received: {device!r}")
        ort = _import_onnxruntime()
        file = check_model_file(source)
        try:
            self._session = _open_session(ort, file, device, threads or available_cpus())
            # The names in a damaged file may be no text.
            self._describe()
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            what = IN_MEMORY if isinstance(source, bytes) else printable(source)
            raise ModelError(
                f"a valid ONNX model is required, but {what} cannot be read: {one_line(error)}"
            ) from error
        self._cuda_version = str(getattr(ort, "cuda_version", ""))
        self._check_device(device, require_gpu)
        self.memory = memory or (CPU_MEMORY if self.provider == CPU else GPU_MEMORY)

    def _describe(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        # Never get_available_providers(): onnxruntime-gpu lists CUDA on machines without it and
        # then runs on the CPU.
        self.provider: str = self._session.get_providers()[0]
        self.inputs: dict[str, tuple[int, ...]] = {item.name: _shape(item.shape) for item in inputs}
        self.outputs: dict[str, tuple[int, ...]] = {
            item.name: _shape(item.shape) for item in outputs
        }
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._dtypes = {
            item.name: np.dtype(DTYPES[item.type])
            for item in (*inputs, *outputs)
            if item.type in DTYPES
        }

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name for one set of inputs, given by name.

        Raises:
            ModelError: an input's name, dtype or shape is not what the model takes, or the
                model fails on them.
        """
        if set(inputs) != set(self.inputs):
            raise ModelError(
                f"the model takes the inputs {sorted(self.inputs)}. Received: {sorted(inputs)}"
            )
        for name, array in inputs.items():
            self._check_input(name, array)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        names = list(self.outputs)
        try:
            if self.provider == CPU:
                values = self._session.run(names, contiguous)
            else:
                values = _run_bound(self._session, contiguous, names)
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            raise ModelError(
                "a model that runs on these inputs is required, but it fails: "
                f"{one_line(error)}; export it anew, or give it other images"
            ) from error
        return dict(zip(names, values, strict=True))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The outputs of one batch after the other, of a model with one input.

        While a batch is in work, the next one is drawn from ``batches`` in another thread, and
        no further one: memory holds two. Close the iterator to stop early.

        Args:
            batches: arrays as the input takes them; the same array may not be filled anew.

        Raises:
            ModelError: as ``run``. What ``batches`` raises comes through in its turn.
        """
        name = self._single_input()
        with closing(_drawn_ahead(batches, self._stage())) as drawn:
            for batch in drawn:
                yield self.run(**{name: batch})

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> dict[str, np.ndarray]:
        """All outputs for all ``images``, batch by batch, of a model with one input.

        Args:
            images: uint8 [N, ...]; may be a memory map, of which a batch at a time is read.
            batch_size: None chooses one that bounds the memory.

        Returns:
            By output name, arrays [N, ...] in the order of the images.

        Raises:
            ModelError: the images do not fit the model's input, or the model fails on them.
        """
        name = self._single_input()
        self._check_input(name, images)
        if not len(images):
            return {
                name: np.empty((0, *(max(length, 0) for length in shape[1:])), self._dtypes[name])
                for name, shape in self.outputs.items()
            }
        size = batch_size or self.batch_size(images.shape[1:])
        starts = range(0, len(images), size)
        batches = (images[start : start + size] for start in starts)
        results: dict[str, np.ndarray] = {}
        # There is nothing to decode ahead of the CPU, and a thread would take its time.
        runs = (
            (self.run(**{name: batch}) for batch in batches)
            if self.provider == CPU
            else self.stream(batches)
        )
        for start, part in zip(starts, runs, strict=True):
            for output, values in part.items():
                if output not in results:
                    results[output] = np.empty((len(images), *values.shape[1:]), values.dtype)
                results[output][start : start + len(values)] = values
        return results

    def batch_size(self, image_shape: Sequence[int], workspace: int = 0) -> int:
        """How many images fit into the model's memory: at least 1, at most ``LARGEST_BATCH``.

        Args:
            image_shape: of one uint8 image, such as (H, W, 3).
            workspace: bytes of one image's tensors between input and output; 0 takes those that
                the model's metadata tell, or a guess from the sizes of input and outputs.
        """
        stored = self.metadata.get(WORKSPACE, "")
        workspace = workspace or (
            int(stored) if stored.isdecimal() and len(stored) < _DIGITS else 0
        )
        image = math.prod(image_shape)
        sizes = {
            name: math.prod(max(length, 1) for length in shape[1:])
            for name, shape in self.outputs.items()
        }
        if workspace:
            kinds = {name: self._dtypes.get(name, np.dtype(np.float32)) for name in sizes}
            ends = image + sum(size * kinds[name].itemsize for name, size in sizes.items())
            taken = workspace + ends
        else:
            taken = UNTOLD_BYTES * (image + sum(sizes.values()))
        return int(np.clip(self.memory // max(taken, 1), 1, LARGEST_BATCH))

    def _stage(self) -> Callable[[np.ndarray], np.ndarray]:
        """What readies a batch for its copy to the device, in the thread that draws it."""
        if self.provider == CPU:
            return np.ascontiguousarray
        return _Staging(lambda array: page_lock(array, self._cuda_version))

    def _single_input(self) -> str:
        if len(self.inputs) != 1:
            raise ModelError(
                f"a model with one input is required, but this one takes {sorted(self.inputs)}: "
                "use run(name=array, ...)"
            )
        (name,) = self.inputs
        return name

    def _check_input(self, name: str, array: np.ndarray) -> None:
        shape, dtype = self.inputs[name], self._dtypes.get(name)
        fits = len(shape) == array.ndim and all(
            wanted in (-1, actual) for wanted, actual in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype:
            raise ModelError(
                f"the model's input {name!r} is {dtype} {_text(shape)}. "
                f"Received: {array.dtype} {_text(array.shape)}"
            )

    def _check_device(self, device: str, require_gpu: bool) -> None:
        if self.provider != CPU:
            return
        if require_gpu:
            raise ScenetrackError(
                f"the GPU is required, but ONNX Runtime runs on {self.provider}: check nvidia-smi "
                "and install 'scenetrack[gpu]', or leave out require_gpu"
            )
        if device == "gpu":
            logger.warning(
                "the GPU was asked for and does not start: running on the CPU; check nvidia-smi "
                "and install 'scenetrack[gpu]'"
            )


class _Staging:
    """Copies batches into two buffers in turn, one to be filled while the other is in use.

    Args:
        lock: readies a new buffer, uint8 [B], for copies by the GPU.
    """

    def __init__(self, lock: Callable[[np.ndarray], object]) -> None:
        self._lock = lock
        self._buffers = [np.empty(0, np.uint8), np.empty(0, np.uint8)]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self._buffers.reverse()
        if self._buffers[0].nbytes < batch.nbytes:
            self._buffers[0] = np.empty(batch.nbytes, np.uint8)
            self._lock(self._buffers[0])
        staged = self._buffers[0][: batch.nbytes].view(batch.dtype).reshape(batch.shape)
        staged[...] = batch
        return staged


def _drawn_ahead(
    batches: Iterable[np.ndarray], stage: Callable[[np.ndarray], np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """The batches, staged, each of them drawn in a thread while the one before it is in use."""
    source = iter(batches)

    def draw() -> np.ndarray | None:
        batch = next(source, None)
        return None if batch is None else stage(batch)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        pending = pool.submit(draw)
        while (batch := pending.result()) is not None:
            pending = pool.submit(draw)
            yield batch


def _run_bound(
    session: Any, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> list[np.ndarray]:
    """Run a session whose inputs are copied to its device once and its outputs back once."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    values: list[np.ndarray] = binding.copy_outputs_to_cpu()
    return values


def _open_session(ort: Any, file: ModelFile, device: str, threads: int) -> Any:
    """A session on the first providers that start."""
    options = ort.SessionOptions()
    # Every error is raised as an exception as well, and a GPU that fails to start would otherwise
    # fill the screen before the CPU takes over; the provider says which one it was.
    options.log_severity_level = FATAL
    ort.set_default_logger_severity(FATAL)
    options.intra_op_num_threads = threads
    # Or bytes that are both ONNX and ONNX Runtime's own format would be read as what was not
    # checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if file.folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(file.folder)
        )
    *preferred, last = provider_lists(ort, device, file)
    for providers in preferred:
        name = providers[0][0]
        try:
            session = _start(ort, file, options, providers)
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            logger.info("%s did not start: %s", name, one_line(error))
            continue
        used = session.get_providers()[0]
        if used != name:
            logger.info("%s did not start: running on %s", name, used)
        return session
    return _start(ort, file, options, last)


def _start(ort: Any, file: ModelFile, options: Any, providers: Providers) -> Any:
    # ONNX Runtime's own way of falling back prints several lines, and before 1.26 it cannot be
    # turned off.
    with redirect_stdout(io.StringIO()):
        return ort.InferenceSession(file.content, options, providers=providers, enable_fallback=0)


def _import_onnxruntime() -> Any:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) > 1:
        raise ScenetrackError(
            "one ONNX Runtime is required, but onnxruntime and onnxruntime-gpu are both installed "
            "and overwrite each other: pip uninstall -y onnxruntime onnxruntime-gpu, then "
            f"{INSTALL}"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise ScenetrackError(
            f"ONNX Runtime is required and is not installed: {INSTALL}"
        ) from error
    # Removing one of two installed runtimes leaves an empty folder that still imports.
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ScenetrackError(
            "ONNX Runtime is required, but its installation is broken: pip uninstall -y "
            f"onnxruntime onnxruntime-gpu, then {INSTALL}"
        )
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _shape(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) else -1 for length in shape)


def _text(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if length < 0 else str(length) for length in shape) + "]"
