"""Train a network with checkpoints, or take the one that an earlier run trained alike."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.cache import Cache
from scenetrack.config import TrainingConfig
from scenetrack.errors import ModelError
from scenetrack.figures import LayerRow, draw_learning_curves, draw_topology
from scenetrack.networks.checkpoints import Checkpoint
from scenetrack.networks.learnt_images import record_learnt_images
from scenetrack.networks.training import Batches, TrainResult, fit, load_model, save_model
from scenetrack.records import Epoch, Metric, Model, Param, Tag, TensorSpec, Text, Tracker
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.learnt_cache import (
    KEPT_NETWORKS,
    KeptNetwork,
    find_network,
    keep_network,
    network_key,
)

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a network learns from.

    Attributes:
        batches: training batches.
        validation: inputs uint8 [M, S, S, 3] and labels int64 [M], or None.
        images: the data set that both come from.
        adapt: prepares layers that are learnt from data before training (whitening).
        prefix: goes before the curves' metric names, where train/accuracy is another method's.
    """

    batches: Batches
    validation: tuple[np.ndarray, np.ndarray] | None
    images: SceneImages
    adapt: Callable[[keras.Model], None] = lambda model: None
    prefix: str = ""


def train_network(
    model: keras.Model, data: TrainingData, config: TrainingConfig, tracker: Tracker
) -> TrainResult:
    """Train ``model``, log its curves epoch by epoch and the model at the end.

    A network that an earlier run trained from the same images in the same way is taken instead,
    with its curves and the time that it took.

    The state after every epoch is kept under the run's id until the training is done; with
    ``config.resume`` the training goes on from that run's state.

    Raises:
        ModelError: the run to resume has no usable checkpoint.
    """
    _log_network(model, tracker)
    key = network_key(model.name, data.images, config)
    alone = nullcontext() if config.resume else Cache().made_once(KEPT_NETWORKS, key)
    with tempfile.TemporaryDirectory() as folder, alone:
        path = Path(folder) / "model.keras"
        kept = None if config.resume else find_network(key)
        if kept:
            result = _reuse(kept, model, data, tracker, path)
        else:
            checkpoint = _checkpoint(config, data.images.dataset.digest, tracker)
            if checkpoint.load() is None:
                data.adapt(model)
            try:
                result = fit(
                    model,
                    data.batches,
                    data.validation,
                    config,
                    checkpoint=checkpoint,
                    on_epoch=lambda epoch, values: tracker.log(Epoch(epoch, values, data.prefix)),
                )
            except ModelError:
                checkpoint.delete()  # a damaged state is of no use to anyone
                raise
            save_model(model, path)
            train = data.images.dataset.train
            record_learnt_images(path, [train.digests[index] for index in data.images.fitted])
            if not config.resume:
                keep_network(key, path, result, tracker.run_id)
        if config.patience:
            tracker.log(Tag("validation_also_chose", "epoch"))
        _log_training(model, path, result, data.prefix, tracker)
    for run_id in filter(None, (tracker.run_id, config.resume)):
        Checkpoint.of_run(run_id).delete()
    return result


def _reuse(
    kept: KeptNetwork, model: keras.Model, data: TrainingData, tracker: Tracker, path: Path
) -> TrainResult:
    """Make ``model`` the kept network, write its file, and log its curves."""
    logger.info("reusing the network of run %s: same images, same settings", kept.run)
    path.write_bytes(kept.file)
    model.set_weights(load_model(path).get_weights())
    tracker.log(Tag("network_of_run", kept.run))
    history = kept.result.history
    for epoch in range(kept.result.epochs):
        values = {name: curve[epoch] for name, curve in history.items()}
        tracker.log(Epoch(epoch, values, data.prefix))
    return kept.result


def _checkpoint(config: TrainingConfig, digest: str, tracker: Tracker) -> Checkpoint:
    checkpoint = Checkpoint.of_run(tracker.run_id)
    checkpoint.delete()
    if config.resume:
        earlier = Checkpoint.of_run(config.resume)
        earlier.check_digest(digest)
        earlier.copy_to(checkpoint)
        saved = checkpoint.load()
        done = len(saved.history["train/loss"]) if saved else 0
        logger.info("resuming run %s after %d finished epochs", config.resume, done)
    else:
        checkpoint.begin(config, digest)
    return checkpoint


def _log_network(model: keras.Model, tracker: Tracker) -> None:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    tracker.log(
        Param("parameters", model.count_params()),
        Metric("parameters", model.count_params()),
        Text("model_summary.txt", "\n".join(lines)),
        draw_topology(layer_rows(model)),
    )


def _log_training(
    model: keras.Model, path: Path, result: TrainResult, prefix: str, tracker: Tracker
) -> None:
    kept: list[Metric] = []
    if result.best_epoch != result.epochs - 1:
        # The last value of a curve is what MLflow's table shows: it has to be the kept model's.
        best = {name: values[result.best_epoch] for name, values in result.history.items()}
        kept = Epoch(result.epochs, best, prefix).metrics
    tracker.log(
        *kept,
        Metric("epochs", result.epochs),
        Metric("best_epoch", result.best_epoch + 1),
        draw_learning_curves(result.history, best_epoch=result.best_epoch),
        Metric("time/fit_s", result.seconds),
        keras_record(model, path),
    )


def layer_rows(model: keras.Model) -> list[LayerRow]:
    """Return the rows of ``figures.draw_topology``, one for each layer, sources first."""
    return [
        LayerRow(
            layer.name,
            type(layer).__name__,
            tuple(layer.output.shape),
            layer.count_params(),
            _sources(layer),
        )
        for layer in model.layers
    ]


def _sources(layer: keras.layers.Layer) -> list[str]:
    """Return the names of the layers whose outputs ``layer`` takes."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    names = [tensor._keras_history.operation.name for tensor in inputs]
    return [name for name in names if name != layer.name]


def keras_record(model: keras.Model, path: Path) -> Model:
    """Return the saved network with its signature, as a record."""
    return Model(
        name="model",
        path=path,
        inputs=[TensorSpec("images", "uint8", (-1, *model.input_shape[1:]))],
        outputs=[TensorSpec("probabilities", "float32", (-1, model.output_shape[-1]))],
    )
