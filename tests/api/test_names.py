"""What ``import scenetrack`` offers: these names, and nothing heavy before one is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import scenetrack

NAMES = [
    "BagOfWords",
    "DenseSift",
    "FisherVector",
    "InputError",
    "Model",
    "Result",
    "ScenetrackError",
    "Vlad",
    "__version__",
    "compare",
    "load",
    "run",
]


def test_the_names_are_these() -> None:
    assert scenetrack.__all__ == dir(scenetrack) == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_each_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(scenetrack, name))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = scenetrack.predict  # type: ignore[attr-defined]


def test_the_import_is_light() -> None:
    code = (
        "import sys, scenetrack; dir(scenetrack); "
        "assert not {'numpy', 'onnx', 'mlflow', 'keras', 'sklearn', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
