"""Cache folder, user paths, printable names and deletion: results and error messages."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.errors import InputError, WriteError
from scenetrack.system.files import (
    cache_dir,
    discard,
    ensure_writable,
    printable,
    replacing,
    user_path,
)
from scenetrack.system.terminal import visible_name


def test_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCENETRACK_CACHE", "~/kept")
    assert cache_dir("a", "b") == tmp_path / "kept" / "a" / "b"
    assert (tmp_path / "kept" / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        ("~no-such-user/x", "home folder in ~no-such-user/x is not known: give the whole path"),
        ("/" + "x" * 5000, "xxx…xxx+ is not"),
        (__file__, "test_files.py is not"),
    ],
)
def test_cache_that_cannot_be(cache: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", cache)
    with pytest.raises(InputError, match=says) as caught:
        cache_dir()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_user_path_leaves_other_paths_alone() -> None:
    assert user_path("photos/~x") == Path("photos/~x")


@given(st.binary(min_size=1, max_size=400).map(os.fsdecode))
def test_printable_is_short_and_always_utf_8(name: str) -> None:
    shown = printable(name)
    shown.encode()
    assert len(shown) <= 301
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    if len(visible_name(name)) <= 300:
        assert shown == visible_name(name)


def test_discard_takes_files_folders_and_links_only_themselves(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    ensure_writable(kept / "below")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for name in ("link", "file", "folder", "nothing"):
        discard(tmp_path / name)
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "below").is_dir()


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EFBIG, "File too large"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError("512 requested and 100 written"),
        OSError("Can't write data (file write failed: errno = 28, No space left on device)"),
        OSError(errno.ENOSPC, "No space left on device", "the/source", None, "the/copy"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, error: OSError) -> None:
    target = tmp_path / "scene.onnx"
    target.write_text("of before")
    with pytest.raises(WriteError, match=r"scene\.onnx cannot be written") as caught:
        _write(target, error)
    assert caught.value.errno == error.errno
    assert str(caught.value).endswith(", or choose another place")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.onnx"]
    assert target.read_text() == "of before"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "/images/a.jpg"), BrokenPipeError()]
)
def test_an_error_that_is_not_of_the_target_stays(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, replacing(tmp_path / "scene.onnx"):
        raise error
    assert caught.value is error


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a\.csv cannot be written .*change the permissions"):
        _write(tmp_path / "file" / "a.csv", None)


def _write(target: Path, error: OSError | None) -> None:
    with replacing(target) as temporary:
        temporary.write_text("half")
        if error:
            raise error
