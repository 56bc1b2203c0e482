"""Cache folder, locks, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from scenetrack.errors import InputError

_LONGEST_SHOWN = 300


def cache_dir(*parts: str) -> Path:
    """A folder of the cache, created: ``SCENETRACK_CACHE``, else the user's cache folder.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    root = os.environ.get("SCENETRACK_CACHE")
    if root:
        base = user_path(root)
    else:
        from platformdirs import user_cache_dir

        base = Path(user_cache_dir("scenetrack"))
    folder = base.joinpath(*parts)
    ensure_writable(folder)
    return folder


def user_path(text: str) -> Path:
    """The path that a user means by ``text``, with ~ and ~name as home folders.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"the home folder in {printable(text)} is not known: give the whole path"
        ) from error


def printable(name: str | Path) -> str:
    """``name`` as a message shows it: cut in the middle where it is long.

    Bytes that are no UTF-8 are shown as ``\\udcXX``.
    """
    text = str(name).encode("utf-8", "backslashreplace").decode()
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return f"{text[:half]}…{text[-half:]}"


def discard(path: Path) -> None:
    """Delete what is at ``path``, file or folder, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def ensure_writable(folder: Path) -> None:
    """Make ``folder`` if needed and raise InputError unless files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except OSError as error:
        raise InputError(
            f"a writable folder is required, but {printable(folder)} is not ({error.strerror}): "
            "choose another folder or change its permissions"
        ) from error


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its place when the block succeeds.

    The temporary name keeps the suffix. Works for files and for folders; a folder that another
    process completed first is left as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        temporary = scratch / target.name
        yield temporary
        if temporary.is_dir() and target.is_dir():
            return
        os.replace(temporary, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def lock(path: Path) -> FileLock:
    """An inter-process lock held in ``path`` with ``.lock`` appended; use it with ``with``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
