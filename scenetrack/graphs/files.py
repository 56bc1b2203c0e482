"""Safe reading of untrusted ONNX files: refuses foreign code, unsafe paths and damaged graphs.

An ONNX graph is data, but three things in it refer to something outside the file: tensors in other
files, operators of custom libraries that would have to be loaded, and nodes that wrap code that a
device driver compiled. Only the first is allowed, and only within the model's own folder.
``graphs.operators`` says which operators are allowed.

Damaged graphs are refused here as well, since older releases of ONNX Runtime crash on some: of
8,000 mutations of a small graph, 20 crashed release 1.22, 13 crashed 1.26 and none crashed 1.32.
With these checks one in 16,000 crashed 1.26: a Conv whose kernel has one dimension too many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import (
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
)

from scenetrack.errors import ModelError
from scenetrack.graphs.operators import ONNX_DOMAINS, Part, check_node, walk
from scenetrack.system.files import printable

# The limit of Protobuf, the format of ONNX files; external data counts as well.
MAX_MODEL_BYTES = 2 * 2**30
# A real network has some thousands.
MAX_NODES = 200_000
# In shape inference some releases of ONNX Runtime loop up to the length of an axis.
MAX_LENGTH = 2**31 - 1
_LONGEST_REASON = 200
_BITS = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}
_RUNTIME_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")

# Name in messages of a model that was given as bytes.
IN_MEMORY = "this model in memory"


@dataclass(frozen=True)
class ModelFile:
    """A model file that passed the checks.

    Attributes:
        content: the bytes that were checked; run these instead of reading the file again.
        folder: resolved folder of the model's external data, or None if there is none.
    """

    content: bytes
    folder: Path | None


def check_model_file(source: Path | str | bytes) -> ModelFile:
    """Read an ONNX file once and return it if it is safe to load.

    Args:
        source: path of the file, or its bytes. A link is resolved to its target.

    Raises:
        ModelError: the file does not exist, is not an ONNX model or needs a newer ONNX; it is
            larger than ``MAX_MODEL_BYTES`` with its external data, or has more than ``MAX_NODES``
            nodes; its external data are missing, truncated or outside the model's folder; it has
            functions or operators that no graph of scenetrack has, such as a Loop, or code that a
            device driver compiled.
    """
    return _load(source)[0]


def read_model(source: Path | str | bytes) -> ModelProto:
    """Return the model of an ONNX file after ``check_model_file``, without its external data.

    Raises:
        ModelError: as ``check_model_file``.
    """
    return _load(source)[1]


def one_line(error: BaseException) -> str:
    """Return the reason from an error of onnx or ONNX Runtime: the end of its text, in one line.

    The texts begin with locations in the libraries' source code and end with the reason.
    """
    reason = " ".join(str(error).split()).rpartition(" was false. ")[2]
    reason = _RUNTIME_PREFIX.sub("", reason)
    return reason if len(reason) <= _LONGEST_REASON else f"…{reason[-_LONGEST_REASON:]}"


def _load(source: Path | str | bytes) -> tuple[ModelFile, ModelProto]:
    if isinstance(source, bytes):
        name, content, folder, real = IN_MEMORY, source, None, None
    else:
        name = printable(source)
        real = _real_file(source, name)
        content, folder = _read(real, name), real.parent
    _check_size(len(content), name)
    try:
        model = ModelProto.FromString(content)
        if not model.HasField("graph"):
            raise _unreadable(name, "it holds no graph")
        external = _check(model, folder, name)
        _check_size(len(content) + sum(path.stat().st_size for path in external), name)
        # The checker looks for external data beside a file, but for a model in memory in the
        # current working directory.
        onnx.checker.check_model(str(real) if external else _with_shapes(model, content))
    # A text field that is not UTF-8 raises only when it is accessed.
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        raise _unreadable(name, one_line(error)) from error
    return ModelFile(content, folder if external else None), model


def _with_shapes(model: ModelProto, content: bytes) -> bytes:
    """Return the content with a shape for every input and output, as the checker requires.

    ONNX Runtime does not require it, and an output's number of dimensions may be unknown.
    """
    if all(value.type.tensor_type.HasField("shape") for value in _inputs_and_outputs(model)):
        return content
    copied = ModelProto()
    copied.CopyFrom(model)
    for value in _inputs_and_outputs(copied):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    shaped: bytes = copied.SerializeToString()
    return shaped


def _inputs_and_outputs(model: ModelProto) -> Iterator[ValueInfoProto]:
    yield from (*model.graph.input, *model.graph.output)


def _real_file(source: Path | str, name: str) -> Path:
    try:
        path = Path(source).resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a zero byte
        found = False
    if not found:
        raise ModelError(f"an ONNX file is required, but there is none at {name}")
    return path


def _read(path: Path, name: str) -> bytes:
    try:
        _check_size(path.stat().st_size, name)
        with path.open("rb") as file:
            return file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise _unreadable(name, str(error.strerror)) from error


def _unreadable(name: str, reason: str) -> ModelError:
    return ModelError(
        f"a valid ONNX model is required, but {name} cannot be read: {reason or 'it is damaged'}"
    )


def _check_size(size: int, name: str) -> None:
    if size > MAX_MODEL_BYTES:
        raise ModelError(
            f"an ONNX model of at most {MAX_MODEL_BYTES:,} bytes with its external data is "
            f"required, but {name} has {size:,}: export a smaller one"
        )


def _check(model: ModelProto, folder: Path | None, name: str) -> set[Path]:
    """Raise ModelError if the model is unsafe; return the files of its external data."""
    _check_versions(model, name)
    if model.functions:
        raise ModelError(
            f"a graph without functions is required, but {name} defines "
            f"{printable(model.functions[0].name)}: export it with its functions inlined"
        )
    files: set[Path] = set()
    size = 0
    for found in walk(_roots(model)):
        if isinstance(found, NodeProto):
            size += 1
            check_node(found, name)
        elif isinstance(found, SparseTensorProto):
            _check_sparse_size(found, name)
        elif isinstance(found, ValueInfoProto):
            _check_lengths(found, name)
        else:
            _check_raw_data(found, name)
            files.update(_external_files(found, folder, name))
    if size > MAX_NODES:
        raise ModelError(
            f"a graph of at most {MAX_NODES:,} nodes is required, but {name} has {size:,}: "
            "export a smaller one"
        )
    return files


def _roots(model: ModelProto) -> list[Part]:
    training = [
        part for info in model.training_info for part in (info.initialization, info.algorithm)
    ]
    return [model.graph, *training]


def _check_versions(model: ModelProto, name: str) -> None:
    opset = max(
        (item.version for item in model.opset_import if item.domain in ONNX_DOMAINS), default=0
    )
    newest = onnx.defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION or opset > newest:
        raise ModelError(
            f"ONNX IR version {onnx.IR_VERSION} and opset {newest} or older are required, but "
            f"{name} has IR version {model.ir_version} and opset {opset}: upgrade onnx and ONNX "
            "Runtime, or export the model for an older opset"
        )


def _check_sparse_size(tensor: SparseTensorProto, name: str) -> None:
    elements = math.prod(tensor.dims)
    if any(length < 0 for length in tensor.dims) or elements > MAX_MODEL_BYTES:
        raise ModelError(
            f"tensors of at most {MAX_MODEL_BYTES:,} elements are required, but {name} has a "
            f"sparse one of {printable(str(list(tensor.dims)))}: export it again"
        )


def _check_lengths(value: ValueInfoProto, name: str) -> None:
    lengths = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if any(not -1 <= length <= MAX_LENGTH for length in lengths):
        raise _unreadable(
            name, f"{printable(value.name)!r} has the shape {lengths}"[:_LONGEST_REASON]
        )


def _check_raw_data(tensor: TensorProto, name: str) -> None:
    if not tensor.HasField("raw_data"):
        return
    bits = _bits(tensor.data_type) * math.prod(tensor.dims)
    if len(tensor.raw_data) != -(-bits // 8):
        raise _unreadable(
            name,
            f"tensor {printable(tensor.name)!r} has {len(tensor.raw_data)} bytes, and its shape "
            f"takes {-(-bits // 8)}",
        )


@cache
def _bits(data_type: int) -> int:
    """Return the bits of one element in raw data; 0 for text and unknown types."""
    try:
        kind = TensorProto.DataType.Name(data_type)
    except ValueError:
        return 0
    # As in INT4, BFLOAT16 and FLOAT8E4M3FN.
    digits = re.search(r"\d+", kind)
    return int(digits[0]) if digits else _BITS.get(kind, 0)


def _external_files(tensor: TensorProto, folder: Path | None, name: str) -> Iterator[Path]:
    if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
        return
    if folder is None:
        raise ModelError(
            f"a model without external data is required, but {name} keeps the tensor "
            f"{printable(tensor.name)!r} in another file: give the model's path"
        )
    locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
    if not locations:
        raise _unreadable(name, f"tensor {printable(tensor.name)!r} names no file for its data")
    for location in locations:
        path = _inside(folder, location, name)
        _check_range(tensor, path, name)
        yield path


def _inside(folder: Path, location: str, name: str) -> Path:
    """Return the file at ``location``; it must resolve to a path inside ``folder``."""
    windows = PureWindowsPath(location)
    # ONNX Runtime interprets a location that starts with an asterisk as a memory address.
    plain = not windows.anchor and not PurePosixPath(location).is_absolute()
    plain = plain and ".." not in windows.parts and not {"*", "\0"} & set(location)
    try:
        path = (folder / location).resolve() if plain else None
        found = path is not None and path.is_file()
    except (OSError, RuntimeError):  # a name too long, links in a circle
        path = None
    if path is None or not path.is_relative_to(folder):
        raise ModelError(
            f"external data within the model's folder is required, but {name} keeps some at "
            f"{printable(location)!r}: do not trust this file"
        )
    if not found:
        raise ModelError(
            f"the external data of {name} is required, but there is no file {printable(path)}: "
            "keep it beside the model"
        )
    return path


def _check_range(tensor: TensorProto, path: Path, name: str) -> None:
    numbers = {entry.key: entry.value for entry in tensor.external_data}
    try:
        start, length = (int(numbers.get(key, "0")) for key in ("offset", "length"))
    except ValueError:
        start = length = -1
    if start < 0 or length < 0 or start + length > path.stat().st_size:
        raise _unreadable(
            name, f"the data of tensor {printable(tensor.name)!r} reaches beyond {printable(path)}"
        )
