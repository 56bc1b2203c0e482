"""The state of a training after its last whole epoch, in files that execute nothing on load."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scenetrack.config import TrainingConfig, field_types
from scenetrack.errors import ModelError
from scenetrack.system.files import cache_dir, replacing


@dataclass(frozen=True)
class SavedState:
    """What ``Checkpoint.load`` gives back: variables, curves, and the best weights if kept."""

    state: list[np.ndarray]
    history: dict[str, list[float]]
    best_weights: list[np.ndarray] | None


@dataclass(frozen=True)
class Checkpoint:
    """A folder with one training's settings (``config.json``) and state (``state.npz``)."""

    folder: Path

    @classmethod
    def of_run(cls, run_id: str) -> Checkpoint:
        """The checkpoint of an MLflow run, in the cache of this machine."""
        return cls(cache_dir("checkpoints") / Path(run_id).name)

    def begin(self, config: TrainingConfig, dataset_digest: str) -> None:
        """Write down what is about to be trained, on which data."""
        content = {"config": dataclasses.asdict(config), "dataset_digest": dataset_digest}
        with replacing(self.folder / "config.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    def config(self, kind: type[TrainingConfig]) -> TrainingConfig:
        """The settings of the training as a ``kind`` config.

        Raises:
            ModelError: there is no checkpoint, or it belongs to another stage.
        """
        values = self._described()["config"]
        if set(values) != set(field_types(kind)):
            raise ModelError(
                f"the checkpoint {self.folder.name} is not one of {kind.stage}: "
                "resume with the command that started it"
            )
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return kind(**settings)

    def check_digest(self, dataset_digest: str) -> None:
        """Raise ModelError unless the data are those that the training began with."""
        if self._described()["dataset_digest"] != dataset_digest:
            raise ModelError(
                f"run {self.folder.name} was trained on other data: restore the images it began "
                "with, or start a new training"
            )

    def save(
        self,
        state: list[np.ndarray],
        history: dict[str, list[float]],
        best_weights: list[np.ndarray] | None,
    ) -> None:
        """Replace the saved state by this one, at once."""
        arrays = {f"state_{index}": value for index, value in enumerate(state)}
        arrays |= {f"best_{index}": value for index, value in enumerate(best_weights or [])}
        arrays["history"] = np.array(json.dumps(history))
        with replacing(self.folder / "state.npz") as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def load(self) -> SavedState | None:
        """The saved state; None before the first epoch was finished.

        Raises:
            ModelError: the file is damaged.
        """
        path = self.folder / "state.npz"
        if not path.exists():
            return None
        try:
            # NumPy would leave a broken archive's file open.
            with path.open("rb") as file, np.load(file) as arrays:
                return SavedState(
                    _numbered(arrays, "state") or [],
                    json.loads(str(arrays["history"])),
                    _numbered(arrays, "best"),
                )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise self.damaged() from error

    def damaged(self) -> ModelError:
        """The error for a checkpoint whose files are not what a training wrote."""
        return ModelError(
            f"the checkpoint {self.folder} is damaged: delete that folder and start a new training"
        )

    def copy_to(self, other: Checkpoint) -> None:
        """Make ``other`` a checkpoint of the same settings and state."""
        with replacing(other.folder) as temporary:
            shutil.copytree(self.folder, temporary)

    def delete(self) -> None:
        """Remove the checkpoint; nothing happens where there is none."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _described(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        if not path.exists():
            raise ModelError(
                f"run {self.folder.name} has no checkpoint on this machine: an interrupted "
                "training is resumed where it ran, with the same SCENETRACK_CACHE; the network of "
                "a finished one is taken with --model"
            )
        try:
            described: dict[str, Any] = json.loads(path.read_text())
            if set(described) != {"config", "dataset_digest"}:
                raise ValueError(f"unexpected entries {sorted(described)}")
        except (ValueError, TypeError, OSError) as error:
            raise self.damaged() from error
        return described


def _numbered(arrays: np.lib.npyio.NpzFile, prefix: str) -> list[np.ndarray] | None:
    count = sum(name.startswith(f"{prefix}_") for name in arrays.files)
    return [arrays[f"{prefix}_{index}"] for index in range(count)] or None
