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
    """How many processors this process may keep busy, at least one.

    The least of the processors it may run on (as Slurm and taskset set them), the share that its
    control group has (as containers set it) and ``OMP_NUM_THREADS``.
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
    """The processors that each control group around this process may use at a time.

    Args:
        own: the list of this process's groups, lines of ``number:controllers:path``.
        root: where the groups are mounted.
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
        # A container without a namespace of its own names its group as the host sees it, while
        # its files lie at the mount.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            share = _quota(folder)
            if share:
                yield share


def _quota(folder: Path) -> float:
    """The share that a group's files state, of version 2 or 1; 0 where there is no limit."""
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
    """Lock the memory of ``array`` for as long as it lives: a GPU then copies it without the CPU.

    Args:
        array: C-contiguous, and owner of its memory.
        cuda_version: such as "12.8": that of the CUDA runtime which this process has loaded.

    Returns:
        Whether it was locked. Where not, copies are slower and nothing else changes.
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
