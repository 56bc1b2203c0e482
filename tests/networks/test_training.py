"""The training loop: figures by hand, schedules, early stopping, resuming to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np
import pytest

from scenetrack.config import TrainMlpConfig
from scenetrack.data.augment import ImageBatches
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.networks import training
from scenetrack.networks.checkpoints import Checkpoint
from scenetrack.networks.registry import build_network
from scenetrack.networks.training import TrainResult, fit, learning_rate, load_model, save_model

CLASSES = 3

Training: TypeAlias = tuple[keras.Model, TrainResult, list[tuple[int, dict[str, float]]]]


class Killed(BaseException):
    """Stands for SIGKILL between two epochs."""


def config(**changed: object) -> TrainMlpConfig:
    settings: dict[str, object] = {
        "image_size": 4,
        "hidden": (6,),
        "dropout": 0.4,
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 0.01,
        "label_smoothing": 0.0,
    }
    return TrainMlpConfig(**(settings | changed))  # type: ignore[arg-type]


def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the brightest channel."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    images = rng.integers(0, 200, (count, 4, 4, 3))
    images[np.arange(count), :, :, labels] += 40
    return images.astype(np.uint8), labels


def batches(settings: TrainMlpConfig) -> ImageBatches:
    images, labels = samples(30, 0)
    return ImageBatches(
        images, labels, np.arange(30), settings.augmentation, settings.batch_size, settings.seed
    )


def train(
    settings: TrainMlpConfig, checkpoint: Checkpoint | None = None, kill_after: int = 10**6
) -> Training:
    model = build_network(settings, CLASSES)
    seen: list[tuple[int, dict[str, float]]] = []

    def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
        seen.append((epoch, dict(figures)))
        if epoch == kill_after:
            raise Killed

    result = fit(
        model,
        batches(settings),
        samples(17, 1),
        settings,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    return model, result, seen


def test_a_training_that_diverges_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(
        optimizer="sgd", learning_rate=10.0, hidden=(64, 64, 64), batch_norm=False, epochs=50,
        schedule="constant", activation="relu", dropout=0.0,
    )  # fmt: skip
    seen: list[int] = []
    with pytest.raises(ScenetrackError, match=r"diverged in epoch \d+ .*learning_rate below 10"):
        fit(
            build_network(settings, CLASSES),
            batches(settings),
            None,
            settings,
            on_epoch=lambda epoch, _: seen.append(epoch),
        )
    assert len(seen) < 49


def ruin(model: keras.Model, epoch: int, last: int) -> None:
    """Make one weight NaN, as the very last update of a training that diverges does."""
    if epoch == last:
        kernel, bias = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([np.full_like(kernel, np.nan), bias])


@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_the_last_update_ruined_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validated: bool
) -> None:
    # The loss of the last batch is that before its update, so it is finite.
    settings = config(epochs=3, patience=0, hidden=(8,))
    model, checkpoint = build_network(settings, CLASSES), Checkpoint(tmp_path / "abc")
    train_epoch, calls = training._train_epoch, iter(range(9))

    def trained(model: keras.Model, rows: object) -> dict[str, float]:
        figures = train_epoch(model, rows)
        ruin(model, next(calls), last=2)
        return figures

    monkeypatch.setattr(training, "_train_epoch", trained)
    checkpoint.begin(settings, "0" * 16)
    what = r"val/loss nan" if validated else r"weights of logits are not finite"
    validation = samples(17, 1) if validated else None
    with pytest.raises(ScenetrackError, match=rf"diverged in epoch 3 \({what}\)"):
        fit(model, batches(settings), validation, settings, checkpoint=checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    assert len(saved.history["train/loss"]) == 2
    assert all(np.isfinite(values).all() for values in saved.state)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    assert training._best_epoch({"val/loss": [np.nan, 2.0, np.nan, 1.0, np.inf]}) == 3


def test_a_ruined_network_is_not_taken(tmp_path: Path) -> None:
    model = build_network(config(hidden=(8,)), CLASSES)
    ruin(model, 0, last=0)
    save_model(model, tmp_path / "ruined.keras")
    with pytest.raises(ModelError, match=r"finite weights is required, but layer logits of"):
        load_model(tmp_path / "ruined.keras")


@pytest.mark.parametrize("damage", ["missing", "wrong shape"])
def test_a_state_of_another_network_is_damaged(tmp_path: Path, damage: str) -> None:
    checkpoint = Checkpoint(tmp_path / "abc")
    train(config(epochs=1), checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    state = saved.state[:-1] if damage == "missing" else [np.zeros(3), *saved.state[1:]]
    checkpoint.save(state, saved.history, None)
    with pytest.raises(ModelError, match="is damaged"):
        train(config(epochs=2), checkpoint)


# A large rate without decay makes the validation loss rise and fall.
RESTLESS = {"epochs": 40, "patience": 3, "learning_rate": 0.3, "schedule": "constant"}


@pytest.fixture(scope="module")
def stopped() -> Training:
    """A training that early stopping ended."""
    return train(config(**RESTLESS))


@pytest.fixture(scope="module")
def whole() -> Training:
    """An uninterrupted training."""
    return train(config())


def same_weights(first: keras.Model, second: keras.Model) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


class TestFigures:
    def test_validation_is_the_mean_over_samples_not_over_batches(self) -> None:
        # 17 images in batches of 8 leave a last batch of one.
        model, result, _ = train(config(epochs=2))
        images, labels = samples(17, 1)
        chances = np.asarray(model.predict(images, verbose=0), np.float64)
        right = chances[np.arange(17), labels]
        assert result.history["val/loss"][-1] == pytest.approx(-np.log(right).mean(), rel=1e-4)
        accuracy = np.mean(chances.argmax(axis=1) == labels)
        assert result.history["val/accuracy"][-1] == pytest.approx(accuracy)

    def test_training_is_the_mean_over_samples_too(self) -> None:
        # With a rate near 0 and no dropout nothing moves: each batch has the first weights.
        still = config(epochs=1, learning_rate=1e-8, dropout=0.0, batch_norm=False, augmentation=())
        untrained = build_network(still, CLASSES)
        images, labels = samples(30, 0)
        chances = np.asarray(untrained.predict(images, verbose=0), np.float64)
        expected = -np.log(chances[np.arange(30), labels]).mean()
        _, result, _ = train(still)
        assert result.history["train/loss"] == [pytest.approx(expected, rel=1e-4)]

    def test_label_smoothing_by_hand(self) -> None:
        model, result, _ = train(config(epochs=1, label_smoothing=0.3))
        images, labels = samples(17, 1)
        logs = np.log(np.asarray(model.predict(images, verbose=0), np.float64))
        # A tenth of the certainty goes to each of the three classes.
        losses = -(0.7 * logs[np.arange(17), labels] + 0.1 * logs.sum(axis=1))
        assert result.history["val/loss"] == [pytest.approx(losses.mean(), rel=1e-4)]

    def test_each_epoch_is_told_once_in_order(self, whole: Training) -> None:
        _, result, seen = whole
        assert [epoch for epoch, _ in seen] == list(range(6))
        assert result.epochs == 6
        assert (result.best_epoch, result.resumed_from) == (5, 0)
        for epoch, figures in seen:
            assert figures == {name: values[epoch] for name, values in result.history.items()}

    def test_it_learns(self) -> None:
        _, result, _ = train(config(epochs=30, dropout=0.0))
        assert result.history["train/accuracy"][-1] > 0.8
        assert result.history["train/loss"][-1] < result.history["train/loss"][0] / 1.5

    def test_without_validation(self) -> None:
        settings = config(epochs=1, validation=0)
        result = fit(build_network(settings, CLASSES), batches(settings), None, settings)
        assert set(result.history) == {"train/loss", "train/accuracy"}


class TestSeeds:
    def test_same_seed_same_weights(self, whole: Training) -> None:
        assert same_weights(train(config())[0], whole[0])

    def test_another_seed_another_training(self, whole: Training) -> None:
        assert train(config(seed=1))[1].history != whole[1].history


class TestResume:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_goes_on_to_the_numbers_of_an_uninterrupted_training(
        self, tmp_path: Path, optimizer: str
    ) -> None:
        settings = config(optimizer=optimizer, schedule="warmup_cosine")
        checkpoint = Checkpoint(tmp_path / "run")
        expected_model, expected, _ = train(settings)
        with pytest.raises(Killed):
            train(settings, checkpoint, kill_after=2)
        model, result, seen = train(settings, checkpoint)
        assert result.resumed_from == 3
        assert result.history == expected.history
        assert [epoch for epoch, _ in seen] == list(range(6))
        assert same_weights(model, expected_model)

    def test_killed_again_and_again(self, tmp_path: Path, whole: Training) -> None:
        checkpoint = Checkpoint(tmp_path / "run")
        for epoch in (0, 1, 4):
            with pytest.raises(Killed):
                train(config(), checkpoint, kill_after=epoch)
        assert train(config(), checkpoint)[1].history == whole[1].history

    def test_after_the_last_epoch_nothing_is_trained(self, tmp_path: Path, whole: Training) -> None:
        checkpoint = Checkpoint(tmp_path / "run")
        with pytest.raises(Killed):
            train(config(), checkpoint, kill_after=5)
        model, result, _ = train(config(), checkpoint)
        assert result.resumed_from == result.epochs == 6
        assert same_weights(model, whole[0])

    def test_dropout_goes_on_drawing_where_it_stopped(self, tmp_path: Path) -> None:
        checkpoint = Checkpoint(tmp_path / "run")
        with pytest.raises(Killed):
            train(config(), checkpoint, kill_after=2)
        saved = checkpoint.load()
        assert saved is not None
        first = build_network(config(), CLASSES)
        places = [k for k, v in enumerate(first.variables) if "seed_generator" in v.path]
        assert places
        for place in places:
            began = np.asarray(first.variables[place])
            assert not np.array_equal(saved.state[place], began)


class TestEarlyStopping:
    def test_stops_after_patience_with_the_best_weights(self, stopped: Training) -> None:
        model, result, _ = stopped
        losses = result.history["val/loss"]
        assert result.best_epoch == int(np.argmin(losses))
        assert len(losses) == result.best_epoch + 1 + 3 < 40
        images, labels = samples(17, 1)
        right = model.predict(images, verbose=0)[np.arange(17), labels]
        loss = -np.log(np.clip(right, 1e-7, 1)).mean()
        assert loss == pytest.approx(min(losses), rel=1e-3)

    def test_resumed_after_the_best_epoch(self, tmp_path: Path, stopped: Training) -> None:
        settings = config(**RESTLESS)
        checkpoint = Checkpoint(tmp_path / "run")
        expected_model, expected, _ = stopped
        with pytest.raises(Killed):
            train(settings, checkpoint, kill_after=expected.best_epoch + 1)
        model, result, _ = train(settings, checkpoint)
        assert (result.best_epoch, result.history) == (expected.best_epoch, expected.history)
        assert same_weights(model, expected_model)

    def test_resumed_after_patience_was_spent(self, tmp_path: Path, stopped: Training) -> None:
        settings = config(**RESTLESS)
        checkpoint = Checkpoint(tmp_path / "run")
        expected_model, expected, _ = stopped
        with pytest.raises(Killed):
            train(settings, checkpoint, kill_after=expected.epochs - 1)
        model, result, _ = train(settings, checkpoint)
        assert result.resumed_from == result.epochs == expected.epochs
        assert same_weights(model, expected_model)


class TestLearningRate:
    @staticmethod
    def rates(schedule: str, steps: int = 10) -> np.ndarray:
        """The rate before each of 40 * steps batches."""
        rate = learning_rate(config(epochs=40, learning_rate=0.5, schedule=schedule), steps)
        if isinstance(rate, float):
            return np.full(40 * steps, rate)
        return np.array([float(rate(step)) for step in range(40 * steps)])

    def test_constant(self) -> None:
        assert (self.rates("constant") == 0.5).all()

    def test_cosine_by_its_formula(self) -> None:
        expected = 0.25 * (1 + np.cos(np.pi * np.arange(400) / 400))
        assert self.rates("cosine") == pytest.approx(expected, abs=1e-6)

    def test_warmup_rises_for_a_twentieth_then_falls_to_nothing(self) -> None:
        rates = self.rates("warmup_cosine")
        assert rates[0] == pytest.approx(0.5 / 25)
        assert rates[:21] == pytest.approx(np.linspace(0.02, 0.5, 21), abs=1e-6)
        assert (np.diff(rates[20:]) < 0).all()
        assert rates[-1] < 0.5 / 1000


class TestModelFiles:
    def test_optimiser_state_stays_behind(self, tmp_path: Path) -> None:
        model, _, _ = train(config(epochs=1))
        save_model(model, tmp_path / "new" / "model.keras")
        loaded = load_model(tmp_path / "new" / "model.keras")
        assert same_weights(model, loaded)
        assert not loaded.compiled

    @pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 broken"])
    def test_broken_file_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.keras"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"saved by Keras 3 is required, but .*model\.keras"):
            load_model(path)

    def test_code_in_a_model_is_refused(self, tmp_path: Path) -> None:
        inputs = keras.Input((2,))
        code = keras.layers.Lambda(lambda x: x + 1)
        keras.Model(inputs, code(inputs)).save(tmp_path / "model.keras")
        with pytest.raises(ModelError, match="cannot be read"):
            load_model(tmp_path / "model.keras")
