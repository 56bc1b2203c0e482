"""Checkpoints: what is saved, loaded, refused and copied."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scenetrack.config import LayerSvmConfig, PatchBowConfig, TrainMlpConfig
from scenetrack.errors import ModelError
from scenetrack.networks.checkpoints import Checkpoint

HISTORY = {"train/loss": [1.5, 0.1 + 0.2], "val/loss": [float("inf"), 1e-300]}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "checkpoints" / "abc")


def state() -> list[np.ndarray]:
    """Many arrays, so that their order by name and by number differ."""
    return [np.full((k % 3, 2), k, np.float32) for k in range(12)] + [np.array(7, np.int64)]


def assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


class TestState:
    def test_comes_back_as_it_was(self, checkpoint: Checkpoint) -> None:
        best = [np.ones((2, 3), np.float32), np.zeros(4, np.float32)]
        checkpoint.save(state(), HISTORY, best)
        saved = checkpoint.load()
        assert saved is not None
        assert_same(saved.state, state())
        assert saved.best_weights is not None
        assert_same(saved.best_weights, best)
        assert saved.history == HISTORY

    def test_none_before_the_first_epoch(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.load() is None
        checkpoint.begin(TrainMlpConfig(), "d1")
        assert checkpoint.load() is None

    def test_without_best_weights(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(state(), HISTORY, None)
        saved = checkpoint.load()
        assert saved is not None
        assert saved.best_weights is None

    def test_the_last_state_counts(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(state(), HISTORY, state())
        checkpoint.save(state()[:2], {"train/loss": [1.0]}, None)
        saved = checkpoint.load()
        assert saved is not None
        assert_same(saved.state, state()[:2])
        assert (saved.history, saved.best_weights) == ({"train/loss": [1.0]}, None)

    def test_a_save_that_fails_leaves_the_state_before(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint.save(state(), HISTORY, None)

        def half(path: Path, **arrays: np.ndarray) -> None:
            path.write_bytes(b"PK half")
            raise KeyboardInterrupt

        monkeypatch.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(state()[:1], HISTORY, None)
        saved = checkpoint.load()
        assert saved is not None
        assert_same(saved.state, state())
        assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz"]

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"no archive"])
    def test_damaged(self, checkpoint: Checkpoint, content: bytes) -> None:
        checkpoint.folder.mkdir(parents=True)
        (checkpoint.folder / "state.npz").write_bytes(content)
        with pytest.raises(ModelError, match="is damaged: delete that folder"):
            checkpoint.load()

    def test_objects_are_not_unpickled(self, checkpoint: Checkpoint) -> None:
        checkpoint.folder.mkdir(parents=True)
        objects = np.array([{}], dtype=object)
        np.savez(checkpoint.folder / "state.npz", history=objects, state_0=objects)
        with pytest.raises(ModelError, match="is damaged"):
            checkpoint.load()


class TestSettings:
    @pytest.mark.parametrize("content", ["{", "{}", "[]", '{"config": {}}'])
    def test_damaged(self, checkpoint: Checkpoint, content: str) -> None:
        checkpoint.folder.mkdir(parents=True)
        (checkpoint.folder / "config.json").write_text(content)
        with pytest.raises(ModelError, match="is damaged: delete that folder"):
            checkpoint.config(TrainMlpConfig)

    @pytest.mark.parametrize(
        "config",
        [
            TrainMlpConfig(hidden=(7, 5), augmentation=(), dropout=0.1 + 0.2, batch_norm=False),
            PatchBowConfig(kernels=("rbf",), contrast_offset=0.1, data="a folder"),
            TrainMlpConfig.from_values({"epochs": 3}, "course"),
        ],
    )
    def test_come_back_equal(
        self, checkpoint: Checkpoint, config: TrainMlpConfig | PatchBowConfig
    ) -> None:
        checkpoint.begin(config, "d1")
        assert checkpoint.config(type(config)) == config

    def test_of_another_stage(self, checkpoint: Checkpoint) -> None:
        checkpoint.begin(LayerSvmConfig(), "d1")
        for kind in (TrainMlpConfig, PatchBowConfig):
            with pytest.raises(ModelError, match=f"abc is not one of {kind.stage}"):
                checkpoint.config(kind)

    def test_data_must_be_the_same(self, checkpoint: Checkpoint) -> None:
        checkpoint.begin(TrainMlpConfig(), "d1")
        checkpoint.check_digest("d1")
        with pytest.raises(ModelError, match="run abc was trained on other data"):
            checkpoint.check_digest("d2")

    def test_no_checkpoint(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(ModelError, match="run abc has no checkpoint on this machine"):
            checkpoint.config(TrainMlpConfig)


class TestPlace:
    def test_is_the_cache_whatever_the_run_is_called(self, shared_cache: Path) -> None:
        assert Checkpoint.of_run("abc").folder == shared_cache / "checkpoints" / "abc"
        assert Checkpoint.of_run("../../abc").folder == shared_cache / "checkpoints" / "abc"

    def test_copy_and_delete(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        checkpoint.begin(TrainMlpConfig(epochs=9), "d1")
        checkpoint.save(state(), HISTORY, None)
        target = Checkpoint(tmp_path / "checkpoints" / "def")
        checkpoint.copy_to(target)
        checkpoint.delete()
        checkpoint.delete()
        assert not checkpoint.folder.exists()
        saved = target.load()
        assert saved is not None
        assert_same(saved.state, state())
        assert target.config(TrainMlpConfig) == TrainMlpConfig(epochs=9)

    def test_settings_can_be_read_by_people(self, checkpoint: Checkpoint) -> None:
        checkpoint.begin(TrainMlpConfig(hidden=(3,)), "d1")
        content = json.loads((checkpoint.folder / "config.json").read_text())
        assert content["config"]["hidden"] == [3]
        assert content["dataset_digest"] == "d1"
