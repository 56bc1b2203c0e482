"""A tiny data set, a store and a cache of their own, and the real commands run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient, entities
from PIL import Image

PROJECT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
CLASSES = ("bars", "checks", "columns")
PER_CLASS = {"train": 9, "test": 5}
SIDE = 48

TINY_MLP = {
    "image_size": "16",
    "hidden": "24,12",
    "dropout": "0.3",
    "epochs": "60",
    "batch_size": "8",
    "validation": "0.2",
}
TINY_PATCHES = {
    "image_size": "32",
    "patch_size": "8",
    "stride": "4",
    "patches_per_image": "12",
    "whitening": "24",
    "hidden": "24,12",
    "dropout": "0.3",
    "epochs": "40",
    "batch_size": "64",
    "validation": "0.2",
    "pca": "6",
    "codebook_size": "8",
    "kernels": "linear,rbf",
    "folds": "2",
}


def write_images(folder: Path) -> Path:
    """``folder`` with train/CLASS/* and test/CLASS/*: striped RGB images, JPEG and PNG by turns."""
    rng = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                suffix = ".jpg" if index % 2 else ".png"
                Image.fromarray(draw(name, rng)).save(place / f"{name}{index}{suffix}")
    return folder


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """An image uint8 [48, 48, 3] of a class: stripes along one axis or both, with noise."""
    positions = np.mgrid[:SIDE, :SIDE] + 12 * rng.random()
    rows, columns = np.sin(2 * np.pi * positions / 12)
    stripes = {"bars": rows, "columns": columns, "checks": rows * columns}[name]
    grey = 128 + 80 * stripes[..., None] * rng.uniform(0.7, 1, 3)
    return np.clip(grey + rng.normal(0, 10, grey.shape), 0, 255).astype(np.uint8)


def flags(settings: Mapping[str, str]) -> list[str]:
    """``--image-size 16 ...`` of settings."""
    return [word for k, v in settings.items() for word in (f"--{k.replace('_', '-')}", v)]


@dataclass(frozen=True)
class Workplace:
    """Folders of a test session, and commands run as a user of them would.

    Attributes:
        root: the working folder, with the SQLite store.
        data: the tiny data set.
        cache: SCENETRACK_CACHE.
        keeps: whether the commands keep and find what is learnt and computed there; a test of
            trainings side by side wants each of them to happen.
    """

    root: Path
    data: Path
    cache: Path
    keeps: bool = True

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, registry_uri=self.uri)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        return inherited | {
            "PATH": f"{SCRIPTS}{os.pathsep}{inherited['PATH']}",
            "MLFLOW_TRACKING_URI": self.uri,
            "SCENETRACK_CACHE": str(self.cache),
            **({} if self.keeps else {"SCENETRACK_CACHE_SIZE": "0"}),
        }

    def start(self, program: str, *words: str) -> subprocess.Popen[str]:
        """Start one of this environment's own programs."""
        return subprocess.Popen(
            [SCRIPTS / program, *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_training(self, stage: str, experiment: str, *words: str) -> subprocess.Popen[str]:
        """Start ``scenetrack STAGE`` on the tiny data set with tiny settings."""
        settings = {"train_mlp": TINY_MLP, "patch_bow": TINY_PATCHES}[stage]
        place = ["--data", str(self.data), "--experiment", experiment]
        return self.start("scenetrack", stage, *place, *flags(settings), *words)

    def runs(self, experiment: str) -> list[entities.Run]:
        """The runs of an experiment that have no parent, oldest first."""
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return []
        runs = self.client.search_runs([found.experiment_id], order_by=["attribute.start_time"])
        return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]

    def children(self, run: entities.Run) -> dict[str, entities.Run]:
        """The child runs by name."""
        query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        found = self.client.search_runs([run.info.experiment_id], query)
        return {child.info.run_name: child for child in found}

    def artifacts(self, run: entities.Run, folder: str = "") -> set[str]:
        """Paths of all files logged to a run."""
        paths: set[str] = set()
        for item in self.client.list_artifacts(run.info.run_id, folder):
            paths |= self.artifacts(run, item.path) if item.is_dir else {item.path}
        return paths

    def curve(self, run: entities.Run, name: str) -> list[float]:
        """A metric's values in the order of its steps, which must be 0, 1, 2, ..."""
        history = self.client.get_metric_history(run.info.run_id, name)
        history = sorted(history, key=lambda metric: metric.step)
        assert [metric.step for metric in history] == list(range(len(history)))
        return [metric.value for metric in history]

    def has_logged_an_epoch(self, experiment: str) -> bool:
        """Whether the experiment's run, if there is one yet, has an epoch's loss."""
        return any(
            name.endswith("train/loss")
            for run in self.runs(experiment)
            for name in run.data.metrics
        )


def finished(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """What the program wrote to stdout and stderr, once it has ended with ``code``."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out, err
