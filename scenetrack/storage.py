"""Where scenetrack keeps what it can make again, and how files are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from scenetrack.errors import InputError


def cache_dir(*parts: str) -> Path:
    """A folder of the cache, created: ``SCENETRACK_CACHE``, else the user's cache folder.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    root = os.environ.get("SCENETRACK_CACHE")
    if root:
        base = Path(root).expanduser()
    else:
        from platformdirs import user_cache_dir

        base = Path(user_cache_dir("scenetrack"))
    folder = base.joinpath(*parts)
    ensure_writable(folder)
    return folder


def ensure_writable(folder: Path) -> None:
    """Make ``folder`` if needed and raise InputError unless files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except OSError as error:
        raise InputError(
            f"a writable folder is required, but {folder} is not ({error.strerror}): "
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
