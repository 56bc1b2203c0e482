"""Checkpoints of a training after each epoch, in files that execute no code on load."""

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
from scenetrack.system.foreign import parsed_json

_SETTINGS = "config.json"


@dataclass(frozen=True)
class SavedState:
    """Content of a checkpoint: variables, curves, and the best weights if they were saved."""

    state: list[np.ndarray]
    history: dict[str, list[float]]
    best_weights: list[np.ndarray] | None


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the settings (``config.json``) and the state (``state.npz``) of a training."""

    folder: Path

    @classmethod
    def of_run(cls, run_id: str) -> Checkpoint:
        """Return the checkpoint of an MLflow run, in the cache of this machine."""
        return cls(cache_dir("checkpoints") / Path(run_id).name)

    @property
    def begun(self) -> bool:
        """Whether a training with this checkpoint has begun, and can be resumed."""
        return (self.folder / _SETTINGS).exists()

    def begin(self, config: TrainingConfig, dataset_digest: str) -> None:
        """Write the settings of a new training and the digest of its data."""
        content = {"config": dataclasses.asdict(config), "dataset_digest": dataset_digest}
        with replacing(self.folder / _SETTINGS) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    def config(self, kind: type[TrainingConfig]) -> TrainingConfig:
        """Return the settings of the training as a ``kind`` config.

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
        """Raise ModelError if the data are not those that the training began with."""
        if self._described()["dataset_digest"] != dataset_digest:
            raise ModelError(
                f"run {self.folder.name} was trained on other data: restore the images that it "
                "started with, or start a new training"
            )

    def save(
        self,
        state: list[np.ndarray],
        history: dict[str, list[float]],
        best_weights: list[np.ndarray] | None,
    ) -> None:
        """Replace the saved state by this one atomically."""
        arrays = {f"state_{index}": value for index, value in enumerate(state)}
        arrays |= {f"best_{index}": value for index, value in enumerate(best_weights or [])}
        arrays["history"] = np.array(json.dumps(history))
        with replacing(self.folder / "state.npz") as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def load(self) -> SavedState | None:
        """Return the saved state; None before the first epoch was finished.

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
                    parsed_json(str(arrays["history"])),
                    _numbered(arrays, "best"),
                )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise self.damaged() from error

    def damaged(self) -> ModelError:
        """Return the error for a checkpoint with invalid files."""
        return ModelError(
            f"the checkpoint {self.folder} is damaged: delete that folder and start a new training"
        )

    def copy_to(self, target: Checkpoint) -> None:
        """Copy settings and state to the checkpoint ``target``."""
        with replacing(target.folder) as temporary:
            shutil.copytree(self.folder, temporary)

    def delete(self) -> None:
        """Delete the checkpoint if it exists."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _described(self) -> dict[str, Any]:
        path = self.folder / _SETTINGS
        if not path.exists():
            raise ModelError(
                f"run {self.folder.name} has no checkpoint on this machine: resume an interrupted "
                "training where it ran, with the same SCENETRACK_CACHE; use --model for the "
                "network of a finished training"
            )
        try:
            described: dict[str, Any] = parsed_json(path.read_text())
            if set(described) != {"config", "dataset_digest"}:
                raise ValueError(f"unexpected entries {sorted(described)}")
        except (ValueError, TypeError, OSError) as error:
            raise self.damaged() from error
        return described


def _numbered(arrays: np.lib.npyio.NpzFile, prefix: str) -> list[np.ndarray] | None:
    count = sum(name.startswith(f"{prefix}_") for name in arrays.files)
    return [arrays[f"{prefix}_{index}"] for index in range(count)] or None
