"""The ranges, the locks and conda.yaml agree, and the locks name no index."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = {"cpu": "requirements.lock", "gpu": "requirements-gpu.lock"}
PYTHONS = ("3.11", "3.12", "3.13")
locks = pytest.mark.parametrize(("extra", "name"), LOCKS.items(), ids=LOCKS)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> list[Requirement]:
    """The pinned requirements of a lock, without their hashes."""
    joined = read(name).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [Requirement(line.split("--hash")[0].strip()) for line in lines]


def versions(name: str, python: str) -> dict[str, Version]:
    """What a lock installs on Linux for a Python version: one version of each package."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
    }
    found: dict[str, Version] = {}
    for pin in pins(name):
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            key = canonicalize_name(pin.name)
            assert key not in found, f"{key} is pinned twice for Python {python}"
            found[key] = Version(specifier.version)
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


@locks
@pytest.mark.parametrize("python", PYTHONS)
def test_direct_dependencies_are_pinned_within_their_ranges(
    project: dict[str, Any], extra: str, name: str, python: str
) -> None:
    pinned = versions(name, python)
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[extra], *extras["test"], *extras["dev"]]
    for requirement in map(Requirement, wanted):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


@locks
def test_lower_bounds_are_what_is_tested(project: dict[str, Any], extra: str, name: str) -> None:
    """The minor version of the lock, the older one where it differs between Pythons."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[extra], *extras["test"], *extras["dev"]]
    pinned = [versions(name, python) for python in PYTHONS]
    for requirement in map(Requirement, wanted):
        (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
        oldest = min(found[canonicalize_name(requirement.name)] for found in pinned)
        tested = f"{oldest.major}.{oldest.minor}"
        assert bound == tested, f"{requirement} allows what is not tested: write >={tested}"


def test_each_lock_has_one_onnxruntime() -> None:
    for python in PYTHONS:
        assert {n for n in versions(LOCKS["cpu"], python) if "onnxruntime" in n} == {"onnxruntime"}
        gpu = {n for n in versions(LOCKS["gpu"], python) if "onnxruntime" in n}
        assert gpu == {"onnxruntime-gpu"}


def test_extras_exclude_each_other(project: dict[str, Any]) -> None:
    base = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert not base & {"onnxruntime", "onnxruntime-gpu"}
    conflicts = tomllib.loads(read("pyproject.toml"))["tool"]["uv"]["conflicts"]
    assert [{"extra": "cpu"}, {"extra": "gpu"}] in conflicts


@locks
def test_locks_are_hashed_and_name_no_index_or_path(extra: str, name: str) -> None:
    text = read(name)
    assert not re.search(r"https?:|file:|@ |^-[a-z-]|/(tmp|home|root|opt|work)/", text, re.M)
    assert text.count("--hash=sha256:") >= len(pins(name))
    for block in re.split(r"^(?=[a-z])", text, flags=re.M)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_conda_installs_the_lock_and_notices_a_new_one() -> None:
    text = read("conda.yaml")
    environment = yaml.safe_load(text)
    python, pip, pip_section = environment["dependencies"]
    assert re.fullmatch(r"python=3\.1[123]", python)
    assert (pip, pip_section) == ("pip", {"pip": ["-r requirements.lock"]})
    digest = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
    assert f"# sha256 of requirements.lock: {digest}\n" in text, "run: tools/lock"
