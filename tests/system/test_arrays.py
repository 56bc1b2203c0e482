from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.errors import ModelError
from scenetrack.system import arrays
from scenetrack.system.arrays import read_arrays

VALUES = {
    "codebook": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "kernel": np.asarray("chi2"),
    "gamma": np.asarray(0.25),
    "none": np.empty((0, 4)),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "saved.npz"
    np.savez(path, allow_pickle=False, **VALUES)
    return path


def npy(header: str, content: bytes) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a.npy", content)
    return path


def test_what_savez_wrote_is_read_back(saved: Path) -> None:
    found = read_arrays(saved)
    assert list(found) == list(VALUES)
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with np.load(saved, allow_pickle=False) as other:
        assert all(np.array_equal(found[name], other[name]) for name in VALUES)


@pytest.mark.parametrize(
    ("header", "content", "reason"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,)}", b"", "malformed"),
        (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
            b"12345678",
            r"claims float64 \[1000000000000\] and has 8 bytes",
        ),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", b"12345678", "claims"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\n", "holds objects"),
        ("{'descr': '<f8', 'shape': (1,)}", b"12345678", "keys"),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: str, content: bytes, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        read_arrays(archive(tmp_path / "a.npz", npy(header, content)))
    assert "\n" not in str(caught.value)


def test_compressed_arrays_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, allow_pickle=False, zeros=np.zeros(10_000_000, np.uint8))
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="it is compressed"):
        read_arrays(path)


def test_entries_that_share_bytes_are_refused(saved: Path) -> None:
    """The same entry listed again and again would be read again and again."""
    content = saved.read_bytes()
    with zipfile.ZipFile(saved) as file:
        start = file.start_dir
    directory, end = content[start:-22], bytearray(content[-22:])
    many = 2000
    end[8:10] = end[10:12] = (len(VALUES) * many).to_bytes(2, "little")
    end[12:16] = (len(directory) * many).to_bytes(4, "little")
    saved.write_bytes(content[:start] + directory * many + bytes(end))
    with pytest.raises(ModelError, match=r"claims \d+ bytes and has|Overlapped"):
        read_arrays(saved)


def test_more_than_the_limit_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MOST_BYTES", 100)
    with pytest.raises(ModelError, match="the limit is 100"):
        read_arrays(saved)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.npz cannot be read \(.*No such file"):
        read_arrays(tmp_path / "gone.npz")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **VALUES)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with contextlib.suppress(ModelError):
        read_arrays(path)
