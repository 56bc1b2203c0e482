"""Arrays from ``.npz`` files that others may have written: no pickles, and no more than they hold.

``numpy.load`` believes what a file says of itself: a few hundred bytes can ask for any amount of
memory, by compression or by the shape that they claim.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scenetrack.errors import ModelError
from scenetrack.storage import printable

MOST_BYTES = 4 * 2**30
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that ``numpy.savez`` wrote, by name, read-only.

    Raises:
        ModelError: the file is missing, damaged, compressed, holds objects, or more than
            MOST_BYTES.
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
