"""What every test shares: a cache of its own, no leftover MLflow settings, the real-data switch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("SCENETRACK_DATA"):
        return
    skip = pytest.mark.skip(reason="SCENETRACK_DATA does not name the real split")
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session, shared by the workers of a parallel one.

    The demo data is drawn once; a lock in the cache keeps workers from drawing it twice.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return root / "scenetrack-cache"


@pytest.fixture(autouse=True)
def _isolated(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache or takes part in the run it is called from."""
    monkeypatch.setenv("SCENETRACK_CACHE", str(shared_cache))
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one store for all tests of tracking: making its tables takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def client(store_folder: Path, _isolated: None, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    from scenetrack import tracking

    monkeypatch.chdir(store_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder / 'mlflow.db'}")
    return tracking.connect()


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    path = tmp_path / "network.keras"
    path.write_bytes(b"stands for a network")
    return path
