"""Image files below a folder: by suffix, by content, in nested folders, through links."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from scenetrack.data.decoding import has_image_signature
from scenetrack.data.walk import image_files, is_image_file


def content(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("name", ["image", "image.dat", "image.1"])
def test_images_are_known_by_content(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content(kind))
    assert is_image_file(path)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"BM is a text, too, as are others",
        b"RIFF1234WAVE",
        b"%PDF-1.7",
        b"\0\0\0\x18ftypmp42",
        b"GIF",
    ],
)
def test_other_contents_are_no_images(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(start + bytes(60))
    assert not has_image_signature(path)
    assert not has_image_signature(tmp_path)
    assert not has_image_signature(tmp_path / "missing")


def test_a_suffix_is_believed_so_that_a_broken_image_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(b"broken")
    assert is_image_file(path)
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert is_image_file(tmp_path / "b.png")
    (tmp_path / "c.png").mkdir()
    assert not is_image_file(tmp_path / "c.png")


def test_files_come_before_folders_each_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a/b/c.png", "c.gif", ".hidden/x.png", ".y.png", "a/n.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    passed_over: Counter[str] = Counter()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path, passed_over)]
    assert found == ["b.png", "c.gif", "a/z.png", "a/b/c.png"]
    assert passed_over == {"hidden": 2, ".txt": 1}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    inner = tmp_path / "root" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(b"")
    (inner / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "self").symlink_to(tmp_path / "root")
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.png").write_bytes(b"")
    (tmp_path / "root" / "linked").symlink_to(other)
    passed_over: Counter[str] = Counter()
    found = [path.name for path in image_files(tmp_path / "root", passed_over)]
    assert found == ["a.png", "b.png"]
    assert passed_over == {"links in a circle": 2}
