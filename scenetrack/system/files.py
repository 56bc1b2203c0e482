"""Cache folder, locks, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from scenetrack.errors import InputError, WriteError
from scenetrack.system.scratch import scratch_folder
from scenetrack.system.terminal import visible_name

_LONGEST_SHOWN = 300
_DISK_ERRORS = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY),
}
_DISK_WORDS = re.compile(
    r"No space left|File too large|errno = (28|27|122)|requested and .* written"
)


def cache_dir(*parts: str) -> Path:
    """Create a folder of the cache and return its path.

    The cache is at ``SCENETRACK_CACHE`` if that is set, else in the user's cache folder.

    Raises:
        InputError: the folder cannot be created or written to.
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
    """Return the path that ``text`` names, with ~ and ~name expanded to home folders.

    Raises:
        InputError: the home folder is unknown.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"the home folder in {printable(text)} is not known: give the whole path"
        ) from error


def printable(name: str | Path) -> str:
    """Return ``name`` as text for a message, shortened in the middle if it is long.

    Bytes that are not UTF-8 are shown as ``\\udcXX``, and control characters as ``\\x1b``.
    """
    text = visible_name(str(name))
    if len(text) <= _LONGEST_SHOWN:
        return text
    half = _LONGEST_SHOWN // 2
    return f"{text[:half]}…{text[-half:]}"


def discard(path: Path) -> None:
    """Delete the file or folder at ``path``, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def ensure_writable(folder: Path) -> None:
    """Create ``folder`` if needed and raise InputError unless files can be created in it."""
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
    """Yield a temporary path beside ``target`` and rename it to ``target`` if the block succeeds.

    The temporary name keeps the suffix. This works for files and for folders; a folder that
    another process completed first is kept. What a killed process left beside is removed.

    Raises:
        WriteError: the disk is full, the file is too large, or the folder cannot be written to.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = scratch_folder(target)
        try:
            temporary = scratch / target.name
            yield temporary
            if temporary.is_dir() and target.is_dir():
                return
            os.replace(temporary, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Raise errors of writing inside the block as WriteError that names ``target``.

    The operating system tells of a full disk without telling which file was written.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        named = error.filename2 or error.filename
        inside = named is None or str(target.parent) in str(named)
        if is_disk_error(error):
            raise WriteError(printable(target), error) from error
        if inside and error.errno in _REFUSALS:
            advice = "change the permissions of its folder"
            raise WriteError(printable(target), error, advice) from error
        raise


def is_disk_error(error: OSError) -> bool:
    """Return whether an error says that a disk is full, or that a file is too large."""
    if error.errno is not None:
        return error.errno in _DISK_ERRORS
    # NumPy and HDF5 put it in words only.
    return _DISK_WORDS.search(str(error)) is not None


def lock(path: Path) -> FileLock:
    """Return an inter-process lock on the file ``path`` plus ``.lock``, for use in ``with``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
