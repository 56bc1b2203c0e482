"""Training loop with a checkpoint after each epoch; a resumed training gives the same values."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
from tqdm import tqdm

from scenetrack.config import TrainingConfig
from scenetrack.errors import ModelError, ScenetrackError
from scenetrack.networks.checkpoints import Checkpoint

OnEpoch = Callable[[int, Mapping[str, float]], None]


class Batches(Protocol):
    """Training batches that depend only on the number of the epoch."""

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of inputs uint8 [B, S, S, 3] and labels int64 [B]."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """Result of a training.

    ``history`` maps train/loss, train/accuracy and, with validation, val/loss and val/accuracy to
    one value per epoch. ``best_epoch`` (from 0) is the epoch whose weights the model has.
    ``resumed_from`` is the number of epochs loaded from an interrupted training.
    """

    history: dict[str, list[float]] = field(repr=False)
    best_epoch: int
    seconds: float
    resumed_from: int

    @property
    def epochs(self) -> int:
        """Number of trained epochs."""
        return len(self.history["train/loss"])


def fit(
    model: keras.Model,
    batches: Batches,
    validation: tuple[np.ndarray, np.ndarray] | None,
    config: TrainingConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch = lambda epoch, values: None,
) -> TrainResult:
    """Train ``model`` in place as ``config`` says.

    Args:
        model: ends in probabilities [N, classes].
        batches: training batches.
        validation: inputs uint8 [M, S, S, 3] and labels int64 [M], or None.
        config: optimiser, schedule, epochs, label smoothing, patience.
        checkpoint: gets the state after every epoch; training continues from its saved state.
        on_epoch: called with the figures of each epoch, including those of the checkpoint.

    Raises:
        ScenetrackError: a figure or a weight is not finite after an epoch; of that epoch nothing
            is kept.
        ModelError: the checkpoint is damaged.

    With early stopping the model ends with the weights of the best validation loss, otherwise
    with those of the last epoch.
    """
    _compile(model, config, batches.steps)
    history, best = _restore(model, checkpoint)
    resumed_from = len(history.get("train/loss", []))
    for epoch in range(resumed_from):
        on_epoch(epoch, {name: values[epoch] for name, values in history.items()})
    started = time.perf_counter()
    with tqdm(
        total=config.epochs,
        initial=resumed_from,
        desc=f"training {model.name}",
        unit="epoch",
        disable=None,
    ) as bar:
        for epoch in range(resumed_from, config.epochs):
            if _patience_spent(history, config.patience):
                break
            figures = _train_epoch(model, batches.epoch(epoch))
            if validation is not None:
                figures |= _validate(model, *validation, config.batch_size)
            # The last update may be the one that ruins the weights: only then is it kept.
            _check_finite(model, figures, epoch, config)
            for name, value in figures.items():
                history.setdefault(name, []).append(value)
            if config.patience and _best_epoch(history) == epoch:
                best = model.get_weights()
            if checkpoint is not None:
                checkpoint.save(_state(model), history, best)
            on_epoch(epoch, figures)
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()})
            bar.update()
    if best is not None:
        model.set_weights(best)
    best_epoch = _best_epoch(history) if config.patience else len(history["train/loss"]) - 1
    return TrainResult(history, best_epoch, time.perf_counter() - started, resumed_from)


def _compile(model: keras.Model, config: TrainingConfig, steps: int) -> None:
    model.compile(
        optimizer=_optimizer(config, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # XLA on CPU compiles for seconds and gains nothing on networks of a few layers.
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


def _optimizer(config: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    rate = learning_rate(config, steps)
    if config.optimizer == "adamw":
        # Biases and batch norm's gamma and beta decay as well. Others spare them; here validation
        # saw no gain: train_mlp --preset tuned on the real split, seeds 0 to 3, held-out accuracy
        # 73.3, 73.3, 73.8, 72.7% with all decayed, and 72.2, 69.5, 70.1, 75.9% with these spared.
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    kinds = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "rmsprop": keras.optimizers.RMSprop,
    }
    return kinds[config.optimizer](rate)


def learning_rate(
    config: TrainingConfig, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate or schedule for ``config.epochs`` epochs of ``steps`` batches."""
    total = config.epochs * steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, total)
    warmup = max(1, total // 20)
    return keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 25,
        max(1, total - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )


def _train_epoch(
    model: keras.Model, batches: Iterator[tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    return _mean_figures("train", model, batches, model.train_on_batch)


def _validate(
    model: keras.Model, inputs: np.ndarray, labels: np.ndarray, batch_size: int
) -> dict[str, float]:
    starts = range(0, len(inputs), batch_size)
    parts = (slice(start, start + batch_size) for start in starts)
    batches = ((inputs[part], labels[part]) for part in parts)
    return _mean_figures("val", model, batches, model.test_on_batch)


def _mean_figures(
    prefix: str,
    model: keras.Model,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    step: Callable[..., Mapping[str, float]],
) -> dict[str, float]:
    """Return loss and accuracy over all samples; Keras' on-batch calls report single batches."""
    totals = dict.fromkeys(("loss", "accuracy"), 0.0)
    seen = 0
    for inputs, labels in batches:
        targets = keras.utils.to_categorical(labels, model.output_shape[-1])
        logs = step(inputs, targets, return_dict=True)
        for name in totals:
            totals[name] += float(logs[name]) * len(labels)
        seen += len(labels)
    return {f"{prefix}/{name}": total / seen for name, total in totals.items()}


def _check_finite(
    model: keras.Model, figures: Mapping[str, float], epoch: int, config: TrainingConfig
) -> None:
    """Raise ScenetrackError if a figure of the epoch or a weight is infinite or not a number."""
    found = [f"{name} {value}" for name, value in figures.items() if not np.isfinite(value)]
    if not found:
        found = [f"weights of {name} are not finite" for name in non_finite_layers(model)]
    if found:
        raise ScenetrackError(
            f"the training diverged in epoch {epoch + 1} ({found[0]}): choose a learning_rate "
            f"below {config.learning_rate:g}, or batch_norm true"
        )


def non_finite_layers(model: keras.Model) -> list[str]:
    """Return the names of the layers that have a weight which is infinite or not a number."""
    return [
        layer.name
        for layer in model.layers
        if not all(np.isfinite(weight).all() for weight in layer.get_weights())
    ]


def _best_epoch(history: Mapping[str, list[float]]) -> int:
    losses = np.array(history["val/loss"])
    # argmin would take a NaN for the smallest.
    return int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))


def _patience_spent(history: Mapping[str, list[float]], patience: int) -> bool:
    if not patience or not history:
        return False
    return len(history["val/loss"]) - 1 - _best_epoch(history) >= patience


def _variables(model: keras.Model) -> list[keras.Variable]:
    # Seed-generator states are among model.variables: with them a resumed training draws the
    # same dropout masks as an uninterrupted one.
    return [*model.variables, *model.optimizer.variables]


def _state(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in _variables(model)]


def _restore(
    model: keras.Model, checkpoint: Checkpoint | None
) -> tuple[dict[str, list[float]], list[np.ndarray] | None]:
    saved = checkpoint.load() if checkpoint is not None else None
    if checkpoint is None or saved is None:
        return {}, None
    variables = _variables(model)
    if [tuple(variable.shape) for variable in variables] != [v.shape for v in saved.state]:
        raise checkpoint.damaged()
    for variable, value in zip(variables, saved.state, strict=True):
        variable.assign(value)
    return saved.history, saved.best_weights


def save_model(model: keras.Model, path: Path) -> None:
    """Write ``model`` atomically as a ``.keras`` file, without its optimiser."""
    from scenetrack.system.files import replacing

    with replacing(path) as temporary:
        model.save(temporary, include_optimizer=False)


def load_model(path: Path) -> keras.Model:
    """Read a ``.keras`` file in Keras' safe mode, with the package's own layers registered.

    Raises:
        ModelError: the file cannot be read as a Keras model, or a weight is not finite.
    """
    import scenetrack.networks.layers  # noqa: F401  (registers the package's layers)

    if not zipfile.is_zipfile(path):
        raise ModelError(f"a .keras file saved by Keras 3 is required, but {path} is not one")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged file can fail anywhere in Keras, h5py or zipfile
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"a .keras file saved by Keras 3 is required, but {path} cannot be read: {reason}"
        ) from error
    if ruined := non_finite_layers(network):
        raise ModelError(
            f"a network with finite weights is required, but layer {ruined[0]} of {path} has "
            "others: its training diverged; train it again with a smaller learning_rate"
        )
    return network


def predict_logits(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return what the network gives before its softmax, float32 [N, C], for uint8 [N, S, S, 3]."""
    logits = keras.Model(network.inputs, network.get_layer("logits").output)
    return np.asarray(logits.predict(images, batch_size=256, verbose=0))
