"""Processors that this process may use, and memory that a GPU reads directly."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return the number of processors that this process may use, at least one.

    This is the minimum of the CPU affinity (as Slurm and taskset set it), the CPU quota of its
    control group (as containers set it) and ``OMP_NUM_THREADS``.
    """
    if hasattr(os, "sched_getaffinity"):
        limits = [len(os.sched_getaffinity(0))]
    else:
        limits = [os.cpu_count() or 1]
    limits += [math.ceil(share) for share in _cgroup_shares(_OWN_CGROUPS, _CGROUPS)]
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if threads.isdecimal():
        limits.append(int(threads))
    return max(1, min(limits))


def _cgroup_shares(own: Path, root: Path) -> Iterator[float]:
    """Yield the number of processors that each control group of this process may use at a time.

    Args:
        own: file that lists this process's groups, in lines of ``number:controllers:path``.
        root: folder where the groups are mounted.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "cpu" if controllers else root
        group = mount / path.lstrip("/")
        # A container without its own namespace names its group as the host sees it, but the
        # group's files are at the mount.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            share = _quota(folder)
            if share:
                yield share


def _quota(folder: Path) -> float:
    """Return a group's CPU quota in processors, from cgroup files v2 or v1; 0 means no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return max(0.0, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such controller
        return 0.0


def page_lock(array: np.ndarray, cuda_version: str) -> bool:
    """Page-lock the memory of ``array`` while it exists: a GPU then copies it without the CPU.

    Args:
        array: C-contiguous array that owns its memory.
        cuda_version: version of the CUDA runtime that this process has loaded, such as "12.8".

    Returns:
        Whether the memory was locked. If not, copies are slower and nothing else changes.
    """
    major = cuda_version.partition(".")[0]
    library = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    address = ctypes.c_void_p(array.ctypes.data)
    try:
        cuda = ctypes.CDLL(library)
        code = cuda.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(0))
    except (OSError, AttributeError) as error:
        logger.debug("memory is not page-locked: %s", error)
        return False
    if code == 0:
        weakref.finalize(array, cuda.cudaHostUnregister, address)
    return bool(code == 0)
