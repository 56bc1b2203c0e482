"""Processors by affinity, control group and environment; page-locked memory."""

import ctypes
import gc
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scenetrack.system import machine
from scenetrack.system.machine import available_cpus, page_lock


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process on eight processors without control groups; the folder of its groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "groups")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.usefixtures("eight_cpus")
def test_affinity_alone() -> None:
    assert available_cpus() == 8


@pytest.mark.usefixtures("eight_cpus")
def test_machines_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("4,2", 4), (" 2 ", 2), ("64", 8), ("0", 1), ("-1", 8), ("many", 8), ("", 8)],
)
@pytest.mark.usefixtures("eight_cpus")
def test_environment(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert available_cpus() == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"job/step/cpu.max": "200000 100000"}, 2),
        ({"job/step/cpu.max": "250000 100000"}, 3),
        ({"job/step/cpu.max": "max 100000", "job/cpu.max": "400000 100000"}, 4),
        ({"job/step/cpu.max": "600000 100000", "job/cpu.max": "500000 100000"}, 5),
        ({"job/step/cpu.max": "5000 100000"}, 1),
        # A container that sees its own group at the mount.
        ({"cpu.max": "200000 100000"}, 2),
        ({"job/step/cpu.max": "nonsense"}, 8),
        ({"job/step/cpu.max": "100000 0"}, 8),
        ({"other/cpu.max": "100000 100000"}, 8),
        ({}, 8),
    ],
)
def test_control_groups_of_version_2(
    limits: dict[str, str], expected: int, eight_cpus: Path
) -> None:
    put(eight_cpus / "own", "0::/job/step\n")
    for name, text in limits.items():
        put(eight_cpus / "groups" / name, f"{text}\n")
    assert available_cpus() == expected


@pytest.mark.parametrize(
    ("controllers", "quota", "expected"),
    [("cpu", "300000", 3), ("cpu,cpuacct", "300000", 3), ("cpu", "-1", 8), ("memory", "300000", 8)],
)
def test_control_groups_of_version_1(
    controllers: str, quota: str, expected: int, eight_cpus: Path
) -> None:
    put(eight_cpus / "own", f"5:devices:/job\n3:{controllers}:/docker/4fa6\n")
    put(eight_cpus / "groups/cpu/cpu.cfs_quota_us", f"{quota}\n")
    put(eight_cpus / "groups/cpu/cpu.cfs_period_us", "100000\n")
    assert available_cpus() == expected


def test_memory_is_locked_while_the_array_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def register(address: ctypes.c_void_p, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:
        assert flags.value == 0
        assert address.value is not None
        calls.append(("register", size.value))
        return 0

    def unregister(address: ctypes.c_void_p) -> int:
        calls.append(("unregister", address.value or 0))
        return 0

    names: list[str] = []

    def load(name: str) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=unregister)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr("sys.platform", "linux")
    array = np.zeros(100, np.uint8)
    address = array.ctypes.data
    assert page_lock(array, "12.8")
    assert names == ["libcudart.so.12"]
    view = array[:5]
    del array
    gc.collect()
    assert calls == [("register", 100)]
    del view
    gc.collect()
    assert calls == [("register", 100), ("unregister", address)]


def test_memory_that_cannot_be_locked_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(3)
    # No CUDA has this version.
    assert not page_lock(array, "0.0")
    refusing = SimpleNamespace(cudaHostRegister=lambda *_: 2, cudaHostUnregister=None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: refusing)
    assert not page_lock(array, "12.8")
    np.testing.assert_array_equal(array, [0, 1, 2])
