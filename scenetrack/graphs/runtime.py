"""ONNX Runtime sessions: device, threads, memory and batches. The only importer of onnxruntime."""

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
from scenetrack.system.native_calls import native_call

logger = logging.getLogger(__name__)

INSTALL = "pip install 'scenetrack[cpu]' (or 'scenetrack[gpu]' for an NVIDIA GPU)"

# Bytes that one batch may take. On 2 cores a dense 64 px network 1024-512 gained nothing from
# batches of more than 16 images at stride 32 or one image at stride 8, and an MLP nothing from more
# than 256; a GPU needs larger matrix products to be fully used.
CPU_MEMORY = 96 * 2**20
GPU_MEMORY = 2**30
LARGEST_BATCH = 256
# For a network that does not state the memory of its intermediate tensors, for each value of its
# input and outputs: 4 bytes as float32, and twice as much for intermediate tensors.
ESTIMATED_BYTES = 12
WORKSPACE = "workspace_bytes"
# Python refuses to parse numbers of thousands of digits, and no machine has so many bytes.
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
    """An ONNX model that is ready to run in an ONNX Runtime session.

    Only the operators of the model are executed; ``graphs.files`` lists what is refused.

    Args:
        source: path of an ``.onnx`` file, or its bytes.
        device: "cpu" runs on the CPU. "gpu" and "auto" run on CUDA if it starts, else on the CPU,
            for which "gpu" logs a warning. With ``SCENETRACK_TENSORRT=1`` in the environment
            TensorRT is tried before CUDA if it is installed; its engines are cached.
        require_gpu: raise instead of falling back to the CPU.
        threads: number of threads within an operator; None uses all available processors.
        memory: bytes that a batch may take; None chooses a default for the device.

    Attributes:
        inputs: shapes by input name; -1 means any length.
        outputs: shapes by output name, likewise.
        dtypes: of inputs and outputs by name, where NumPy has the type.
        metadata: metadata properties of the model. ``workspace_bytes`` is the memory of the
            intermediate tensors of one image.
        provider: execution provider that the session uses.
        runtime: name and version of ONNX Runtime, of which other versions give other digits.
        memory: bytes that a batch may take.

    Raises:
        ModelError: the file is missing, not a valid ONNX model, or refused as unsafe.
        ScenetrackError: ONNX Runtime is not installed or is installed twice, or the required GPU
            does not start.
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
            # The names in a damaged file may not be valid text.
            self._describe()
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            what = IN_MEMORY if isinstance(source, bytes) else printable(source)
            raise ModelError(
                f"a valid ONNX model is required, but {what} cannot be read: {one_line(error)}"
            ) from error
        self._ort = ort
        self._cuda_version = str(getattr(ort, "cuda_version", ""))
        self.runtime = f"ONNX Runtime {getattr(ort, '__version__', 'unknown')}"
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
        self.dtypes: dict[str, np.dtype[Any]] = {
            item.name: np.dtype(DTYPES[item.type])
            for item in (*inputs, *outputs)
            if item.type in DTYPES
        }

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs by name for inputs given by name.

        Raises:
            ModelError: the name, dtype or shape of an input does not match the model, or the model
                fails on the inputs.
        """
        if set(inputs) != set(self.inputs):
            raise ModelError(
                f"the model takes the inputs {sorted(self.inputs)}. Received: {sorted(inputs)}"
            )
        for name, array in inputs.items():
            self._check_input(name, array)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        names = list(self.outputs)
        options = self._ort.RunOptions()
        try:
            # It returns after the operator that it is computing now.
            with native_call(lambda: setattr(options, "terminate", True)):
                if self.provider == CPU:
                    values = self._session.run(names, contiguous, options)
                else:
                    values = _run_bound(self._session, contiguous, names, options)
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            raise ModelError(
                "a model that runs on these inputs is required, but it fails: "
                f"{one_line(error)}; export it again, or give it other images"
            ) from error
        return dict(zip(names, values, strict=True))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the outputs of one batch after the other, for a model with one input.

        While a batch is processed, another thread prepares the next one and no more: memory holds
        two batches. Close the iterator to stop early.

        Args:
            batches: arrays that match the input; an array must not be overwritten after its turn.

        Raises:
            ModelError: as ``run``. An exception of ``batches`` is raised in its turn.
        """
        name = self._single_input()
        with closing(_prepared_ahead(batches, self._stage())) as prepared:
            for batch in prepared:
                yield self.run(**{name: batch})

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> dict[str, np.ndarray]:
        """Return all outputs for all ``images``, batch by batch, for a model with one input.

        Args:
            images: images uint8 [N, ...]; a memory map is read one batch at a time.
            batch_size: number of images in a batch; None chooses one that bounds the memory.

        Returns:
            Arrays [N, ...] in the order of the images, by output name.

        Raises:
            ModelError: the images do not match the model's input, or the model fails on them or
                gives more or fewer rows than there are images.
        """
        name = self._single_input()
        self._check_input(name, images)
        if not len(images):
            return {
                name: np.empty((0, *(max(length, 0) for length in shape[1:])), self.dtypes[name])
                for name, shape in self.outputs.items()
            }
        size = batch_size or self.batch_size(images.shape[1:])
        starts = range(0, len(images), size)
        batches = (images[start : start + size] for start in starts)
        results: dict[str, np.ndarray] = {}
        # On the CPU nothing is prepared ahead: a thread would compete for the same processors.
        runs = (
            (self.run(**{name: batch}) for batch in batches)
            if self.provider == CPU
            else self.stream(batches)
        )
        for start, part in zip(starts, runs, strict=True):
            count = min(size, len(images) - start)
            for output, values in part.items():
                first = results.get(output, values)
                if np.shape(values) != (count, *np.shape(first)[1:]):
                    raise _wrong_rows(output, values, count)
                if output not in results:
                    results[output] = np.empty((len(images), *values.shape[1:]), values.dtype)
                results[output][start : start + count] = values
        return results

    def batch_size(self, image_shape: Sequence[int], workspace: int = 0) -> int:
        """Return the number of images that fit into ``memory``: from 1 to ``LARGEST_BATCH``.

        Args:
            image_shape: shape of one uint8 image, such as (H, W, 3).
            workspace: bytes of the intermediate tensors of one image; 0 uses the value in the
                model's metadata, or else an estimate from the sizes of input and outputs.
        """
        text = self.metadata.get(WORKSPACE, "")
        workspace = workspace or (int(text) if text.isdecimal() and len(text) < _DIGITS else 0)
        image = math.prod(image_shape)
        sizes = {
            name: math.prod(max(length, 1) for length in shape[1:])
            for name, shape in self.outputs.items()
        }
        if workspace:
            kinds = {name: self.dtypes.get(name, np.dtype(np.float32)) for name in sizes}
            ends = image + sum(size * kinds[name].itemsize for name, size in sizes.items())
            taken = workspace + ends
        else:
            taken = ESTIMATED_BYTES * (image + sum(sizes.values()))
        return int(np.clip(self.memory // max(taken, 1), 1, LARGEST_BATCH))

    def _stage(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that prepares a batch for the device, in the preparing thread."""
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
        shape, dtype = self.inputs[name], self.dtypes.get(name)
        fits = len(shape) == array.ndim and all(
            wanted in (-1, length) for wanted, length in zip(shape, array.shape, strict=True)
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
                "the GPU was requested but does not start: running on the CPU; check nvidia-smi "
                "and install 'scenetrack[gpu]'"
            )


class _Staging:
    """Double buffering: copies batches into two buffers in turn, one filled while one is in use.

    Args:
        lock: function that page-locks a new buffer, uint8 [B], for copies by the GPU.
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


def _prepared_ahead(
    batches: Iterable[np.ndarray], stage: Callable[[np.ndarray], np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """Yield the batches, staged; a thread prepares each one while the previous one is in use."""
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
    session: Any, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], options: Any
) -> list[np.ndarray]:
    """Run a session with I/O binding: inputs are copied to the device once, outputs back once."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding, options)
    values: list[np.ndarray] = binding.copy_outputs_to_cpu()
    return values


def _open_session(ort: Any, file: ModelFile, device: str, threads: int) -> Any:
    """Return a session on the first list of providers that starts."""
    options = ort.SessionOptions()
    # Every error is also raised as an exception, and a GPU that fails to start would otherwise
    # fill the screen with messages before the fallback to the CPU.
    options.log_severity_level = FATAL
    ort.set_default_logger_severity(FATAL)
    options.intra_op_num_threads = threads
    # Otherwise bytes that are valid in ONNX and in ONNX Runtime's own format would be read in the
    # format that was not checked.
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
    # ONNX Runtime's own fallback prints several lines, which cannot be turned off before 1.26.
    with redirect_stdout(io.StringIO()), native_call():
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
    # Removing one of two installed runtimes leaves an empty folder that can still be imported.
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


def _wrong_rows(output: str, values: np.ndarray, count: int) -> ModelError:
    return ModelError(
        f"a model that gives a row for each image is required, but for {count} images its output "
        f"{printable(output)!r} is {_text(np.shape(values))}: export it again"
    )


def _shape(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) else -1 for length in shape)


def _text(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if length < 0 else str(length) for length in shape) + "]"
