"""Hidden folders that are written in, named after their process: those of dead ones are removed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from scenetrack.system.process_identity import process_identity

logger = logging.getLogger(__name__)

# .NAME-PLACE_PID_LIFE_RANDOM: a place is a machine and its namespace of processes, and a life tells
# a process from a later one with its number.
_SCRATCH = re.compile(r"\..+-([0-9a-f]{8})_(\d+)_([0-9a-f]{8})_\w+")
# Bytes of the target's name that are kept: file systems allow 255 in all.
_NAME_KEPT = 120
# Of another machine nobody knows whether its process lives: nothing is written for so long.
_ABANDONED_S = 7 * 86400

_swept: set[tuple[int, Path]] = set()


def scratch_folder(target: Path) -> Path:
    """Make a hidden folder beside ``target`` and return its path.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(target.parent)
    name = os.fsencode(target.name)[:_NAME_KEPT].decode("utf-8", "ignore")
    prefix = f".{name}-{_owner(os.getpid())}_"
    return Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove the scratch folders in ``folder`` whose processes have died; return their paths."""
    abandoned = [path for path in folder.glob(".*-*_*_*_*") if _is_abandoned(path)]
    for path in abandoned:
        logger.debug("removing %s: its process has died", path)
        shutil.rmtree(path, ignore_errors=True)
    return abandoned


def _sweep(folder: Path) -> None:
    """Remove what is abandoned in ``folder``, once in a process: folders may be long."""
    key = (os.getpid(), folder.absolute())
    if key not in _swept:
        _swept.add(key)
        remove_abandoned(folder)


def _is_abandoned(path: Path) -> bool:
    parts = _SCRATCH.fullmatch(path.name)
    if parts is None:
        return False
    place, pid, life = parts.groups()
    if place == _place():
        return life != _life(int(pid))
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except OSError:
        return False


@lru_cache(1)
def _owner(pid: int) -> str:
    return f"{_place()}_{pid}_{_life(pid)}"


def _place() -> str:
    space = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return _digest(f"{socket.gethostname()} {space}")


def _life(pid: int) -> str:
    return _digest(process_identity(pid) or "none")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
