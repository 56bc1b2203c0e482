"""One store for all tests of tracking: making its tables takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from scenetrack import tracking


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def client(folder: Path, _isolated: None, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return tracking.connect()


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    path = tmp_path / "network.keras"
    path.write_bytes(b"stands for a network")
    return path
