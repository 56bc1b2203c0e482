"""Runs ONNX models: device, threads and batches. The only importer of onnxruntime."""

from __future__ import annotations

import importlib.metadata
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from scenetrack.errors import ModelError, ScenetrackError

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "gpu")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INSTALL = "pip install 'scenetrack[cpu]' (or 'scenetrack[gpu]' for an NVIDIA GPU)"

# What one batch may take as float32 inputs plus outputs: the tensors in between are often several
# times as large again. On 2 cores an MLP 1024-512 on 16, 32 and 64 px images was fastest at 256
# images a batch, within 10% from 64 on.
BATCH_BYTES = 32 * 2**20
LARGEST_BATCH = 256
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

    Args:
        source: path of an ``.onnx`` file, or its bytes.
        device: "cpu"; "gpu", which insists on CUDA; "auto", CUDA where it starts, else the CPU.
        threads: threads within an operator; None leaves the number to ONNX Runtime, which takes
            one for each physical core.

    Attributes:
        inputs: shape by input name, with -1 where any length is accepted.
        outputs: shape by output name, likewise.
        metadata: the model's own keys and values.
        provider: the execution provider that the session really uses.

    Raises:
        ModelError: the file is missing or is no valid ONNX model.
        ScenetrackError: ONNX Runtime is not installed, is installed twice, or the GPU that was
            insisted on does not start.
    """

    def __init__(
        self, source: Path | str | bytes, *, device: str = "auto", threads: int | None = None
    ) -> None:
        if device not in DEVICES:
            raise ModelError(f"device must be one of: {', '.join(DEVICES)}. Received: {device!r}")
        self._session = _open_session(source, device, threads)
        # Never get_available_providers(): onnxruntime-gpu lists CUDA on machines without it and
        # then runs on the CPU.
        self.provider: str = self._session.get_providers()[0]
        self._check_device(device)
        self.inputs: dict[str, tuple[int, ...]] = {
            item.name: _shape(item.shape) for item in self._session.get_inputs()
        }
        self.outputs: dict[str, tuple[int, ...]] = {
            item.name: _shape(item.shape) for item in self._session.get_outputs()
        }
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._dtypes = {
            item.name: np.dtype(DTYPES[item.type])
            for item in (*self._session.get_inputs(), *self._session.get_outputs())
            if item.type in DTYPES
        }

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name for one set of inputs, given by name.

        Raises:
            ModelError: an input's name, dtype or shape is not what the model takes.
        """
        if set(inputs) != set(self.inputs):
            raise ModelError(
                f"the model takes the inputs {sorted(self.inputs)}. Received: {sorted(inputs)}"
            )
        for name, array in inputs.items():
            self._check_input(name, array)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, contiguous), strict=True))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The outputs of one batch after the other, of a model with one input.

        A batch is drawn from ``batches`` only when its turn comes, so that memory holds one.
        """
        name = self._single_input()
        for batch in batches:
            yield self.run(**{name: batch})

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> dict[str, np.ndarray]:
        """All outputs for all ``images``, batch by batch, of a model with one input.

        Args:
            images: uint8 [N, ...]; may be a memory map, of which a batch at a time is read.
            batch_size: None chooses one that bounds the memory.

        Returns:
            By output name, arrays [N, ...] in the order of the images.

        Raises:
            ModelError: the images do not fit the model's input.
        """
        self._check_input(self._single_input(), images)
        if not len(images):
            return {
                name: np.empty((0, *(max(length, 0) for length in shape[1:])), self._dtypes[name])
                for name, shape in self.outputs.items()
            }
        size = batch_size or self._batch_size(images)
        starts = range(0, len(images), size)
        results: dict[str, np.ndarray] = {}
        parts = self.stream(images[start : start + size] for start in starts)
        for start, part in zip(starts, parts, strict=True):
            for name, values in part.items():
                if name not in results:
                    results[name] = np.empty((len(images), *values.shape[1:]), values.dtype)
                results[name][start : start + len(values)] = values
        return results

    def _batch_size(self, images: np.ndarray) -> int:
        """How many images' float32 input and outputs fit into BATCH_BYTES, at least one."""
        shapes = [images.shape[1:], *(shape[1:] for shape in self.outputs.values())]
        values = sum(int(np.prod([max(length, 1) for length in shape])) for shape in shapes)
        return int(np.clip(BATCH_BYTES // (4 * values), 1, LARGEST_BATCH))

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
            wanted in (-1, came) for wanted, came in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype:
            raise ModelError(
                f"the model's input {name!r} is {dtype} {_text(shape)}. "
                f"Received: {array.dtype} {_text(array.shape)}"
            )

    def _check_device(self, device: str) -> None:
        if device == "gpu" and self.provider != CUDA:
            raise ScenetrackError(
                f"the GPU is required, but ONNX Runtime runs on {self.provider}: check nvidia-smi "
                "and install 'scenetrack[gpu]', or choose the device auto or cpu"
            )


def _open_session(source: Path | str | bytes, device: str, threads: int | None) -> Any:
    ort = _import_onnxruntime()
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise ModelError(f"an ONNX file is required, but there is none at {source}")
    options = ort.SessionOptions()
    # Every error is raised as an exception as well, and a GPU that fails to start would otherwise
    # fill the screen before the CPU takes over; the provider says which one it was.
    options.log_severity_level = FATAL
    ort.set_default_logger_severity(FATAL)
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = _providers(ort, device)
    model = source if isinstance(source, bytes) else str(source)
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no narrower base
        what = "these bytes" if isinstance(source, bytes) else str(source)
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"a valid ONNX model is required, but {what} cannot be read: {reason}"
        ) from error
    if len(providers) > 1 and session.get_providers()[0] != CUDA:
        logger.warning("%s did not start: running on the CPU", CUDA)
    return session


def _providers(ort: Any, device: str) -> list[str | tuple[str, dict[str, str]]]:
    if device == "cpu" or CUDA not in ort.get_available_providers():
        return [CPU]
    # CUDA's libraries may come as Python packages, which the loader does not find by itself; the
    # call prints what it misses, and a missing GPU is reported by its provider anyway.
    with redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    logger.debug("preloading CUDA: %s", said.getvalue())
    # TF32 keeps 10 bits of the mantissa: descriptors would differ between the GPU and the CPU by
    # more than an export is allowed to differ from its network.
    return [(CUDA, {"use_tf32": "0"}), CPU]


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
