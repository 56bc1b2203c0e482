"""Safe reading and validation of untrusted ``.npz`` files: no pickles, no decompression bombs.

``numpy.load`` trusts the headers of a file: a few hundred bytes can request any amount of memory,
by compression or by the shape that they declare. And an array whose shape does not match the
other arrays would otherwise fail deep inside a matrix product, or never.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scenetrack.errors import InputError, ModelError
from scenetrack.system.files import printable

MOST_BYTES = 4 * 2**30
# Its square is still a float32.
MOST = 1e18
_KINDS = {"numbers": "fiu", "integers": "iu", "flag": "b", "text": "U"}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that ``numpy.savez`` wrote, by name, read-only.

    Raises:
        ModelError: the file is missing, damaged or compressed, or holds objects or more than
            MOST_BYTES bytes.
    """
    # Broken bytes make zipfile and numpy raise almost anything.
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size)
            return {name.removesuffix(".npy"): _read(archive, name) for name in archive.namelist()}
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"arrays as numpy.savez writes them are required, but {printable(path)} cannot be "
            f"read ({reason}): run the stage again"
        ) from error


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed")
    # Entries that share bytes would come to more than the file.
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise ValueError(f"it claims {total} bytes and has {size}")
    if total > MOST_BYTES:
        raise ValueError(f"it has {total} bytes, the limit is {MOST_BYTES}")


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as file:
        shape, fortran_order, dtype = _header(file)
        content = file.read()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} claims {dtype} {list(shape)} and has {len(content)} bytes")
    values = np.frombuffer(content, dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format {version} is unknown")
    shape, fortran_order, dtype = _HEADERS[version](file)
    return shape, fortran_order, dtype


def checked_arrays(
    arrays: Mapping[str, NDArray[Any]], needed: Mapping[str, str], what: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays that ``needed`` names, after checking their kinds and shapes.

    Args:
        arrays: arrays by name, of any dtypes and shapes.
        needed: kind and axes of each array by name, such as "numbers K D". Kinds are numbers
            (finite, absolute values at most MOST), integers, flag and text. An axis has the same
            length, at least 1, in all arrays; a number such as 2 is the length itself.
        what: what the arrays belong to, for the message, such as "bag of words".

    Raises:
        InputError: an array is missing, of another kind, or does not match the other arrays.
    """
    lengths: dict[str, int] = {}
    for name, description in needed.items():
        kind, *axes = description.split()
        known = [str(lengths.get(axis, axis)) for axis in axes]
        if name not in arrays:
            raise _unusable(what, name, kind, known, "none")
        array = np.asarray(arrays[name])
        if not _fits(array, kind, known):
            raise _unusable(what, name, kind, known, _description(array))
        lengths.update(zip(axes, array.shape, strict=True))
    return {name: np.asarray(arrays[name]) for name in needed}


def _fits(array: NDArray[Any], kind: str, axes: list[str]) -> bool:
    """Return whether an array is of the kind and has the lengths of those axes that are numbers."""
    if array.dtype.kind not in _KINDS[kind] or array.ndim != len(axes) or not array.size:
        return False
    # Written so that NaN fails.
    if kind == "numbers" and not (np.abs(array.astype(np.float64)) <= MOST).all():
        return False
    pairs = zip(array.shape, axes, strict=True)
    return all(length == int(axis) for length, axis in pairs if axis.isdecimal())


def _description(array: NDArray[Any]) -> str:
    text = f"{array.dtype} {list(array.shape)}"
    is_float = array.dtype.kind == "f" and not np.isfinite(array).all()
    return f"{text} with values that are not finite" if is_float else text


def _unusable(what: str, name: str, kind: str, axes: list[str], received: str) -> InputError:
    shape = f" [{', '.join(axes)}]" if axes else ""
    return InputError(
        f"a saved {what} needs {name}: {kind}{shape}. Received: {received}; train it again with "
        "this version"
    )
