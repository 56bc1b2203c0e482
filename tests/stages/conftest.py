"""What integration tests share: one workplace, and runs that several tests look at."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import entities
from workplace import PROJECT, TINY_PATCHES, Workplace, finished, write_images


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("workplace")
    return Workplace(root, write_images(root / "photos"), root / "cache")


@pytest.fixture(scope="session")
def twins(workplace: Workplace) -> tuple[entities.Run, entities.Run]:
    """Two runs of train_mlp with the same seed, started at once on a store that did not exist."""
    assert not (workplace.root / "mlflow.db").exists()
    forgetful = replace(workplace, keeps=False)
    processes = [forgetful.start_training("train_mlp", "twins") for _ in range(2)]
    for process in processes:
        finished(process)
    # mlflow keeps its store for the process, with artifacts below the folder of that moment.
    with contextlib.chdir(workplace.root):
        assert workplace.client
    first, second = workplace.runs("twins")
    return first, second


@pytest.fixture(scope="session")
def project_run(workplace: Workplace, twins: object) -> entities.Run:
    """The main job as ``mlflow run`` runs it."""
    given = {"data": str(workplace.data), **TINY_PATCHES}
    words = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
    place = ["-e", "patch_bow", "--env-manager", "local", "--experiment-name", "project"]
    finished(workplace.start("mlflow", "run", str(PROJECT), *place, *words))
    (run,) = workplace.runs("project")
    return run


@pytest.fixture
def here(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workplace:
    """The workplace for code that runs in this process, in an empty working folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workplace.uri)
    monkeypatch.setenv("SCENETRACK_CACHE", str(workplace.cache))
    monkeypatch.chdir(tmp_path)
    return workplace


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """cli.main gives the package's logger a handler for the stderr of the moment."""
    logger = logging.getLogger("scenetrack")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level
