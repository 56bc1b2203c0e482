"""Task 5: a patch network, its descriptors encoded for SVMs, against end to end."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import PatchBowConfig
from scenetrack.data.images import load_images
from scenetrack.data.patches import PatchBatches, sample_patches
from scenetrack.descriptors.extraction import DescriptorExtractor
from scenetrack.errors import ConfigError
from scenetrack.export.dense import Dense
from scenetrack.export.scales import positions
from scenetrack.export.truncate import joined_output
from scenetrack.networks.patch_mlp import learn_whitening, whitening_samples
from scenetrack.records import Tracker
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.encoding import (
    DescribedSplits,
    EncodingMethods,
    aggregated,
    check_pca,
    describe,
)
from scenetrack.workflow.method_runs import MethodRuns
from scenetrack.workflow.network import (
    ChosenNetwork,
    choose_network,
    descriptor_width,
    export_descriptor,
    patch_grids,
)
from scenetrack.workflow.network_training import TrainingData, train
from scenetrack.workflow.result import StageResult

if TYPE_CHECKING:
    import keras

VALIDATION_PATCHES = 20  # of each held-out image
_TRIED_PATCHES = 512


def patch_bow(config: PatchBowConfig, tracker: Tracker) -> StageResult:
    """One parent run; child runs ``end to end`` and one for each SVM kernel.

    Raises:
        InputError: the data, the model or the layers cannot be used.
    """
    chosen = choose_network(config, tracker, "patch_size")
    network, layers, images = chosen.network, chosen.layers, chosen.images
    check_pca(config.pca, descriptor_width(network, layers), f"layer {', '.join(layers)}")
    if config.square_root:
        _check_never_negative(chosen, config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.is_new:
            _train(network, images, config, tracker, folder)
        dense = Dense(config.stride, config.form, config.device)
        onnx = export_descriptor(
            network, layers, images, config, tracker, folder, dense, config.scaled_sizes
        )
        extractor = DescriptorExtractor(onnx.model, onnx.digest, positions(patch_grids(config)))
        splits = describe(extractor, images, tracker)
    return _compare(config, tracker, images, layers, splits, unseen=chosen.is_new)


def _check_never_negative(chosen: ChosenNetwork, config: PatchBowConfig) -> None:
    """Raise ConfigError, before any training, where the layers' outputs have no square roots."""
    import keras

    patches = sample_patches(
        [chosen.images.train],
        config.patch_size,
        max(_TRIED_PATCHES, 2 * config.whitening),
        seed=config.seed,
        owners=chosen.images.fitted,
    )
    if chosen.is_new:
        # Until it is learnt, anew with more patches, whitening makes all patches equal.
        learn_whitening(chosen.network, patches)
    part = keras.Model(chosen.network.inputs, joined_output(chosen.network, chosen.layers))
    smallest = part.predict(patches[:_TRIED_PATCHES], verbose=0).min()
    if smallest < 0:
        raise ConfigError(
            f"square_root takes no negative values, but layer {', '.join(chosen.layers)} gives "
            f"them. Received: {smallest:.3g}; leave square_root out, or choose a layer with relu"
        )


def _train(
    network: keras.Model,
    images: SceneImages,
    config: PatchBowConfig,
    tracker: Tracker,
    folder: Path,
) -> None:
    labels, pixels = images.dataset.train.labels, _scaled(images, config)
    batches = PatchBatches(
        images=pixels,
        owners=images.fitted,
        labels=labels,
        patch_size=config.patch_size,
        per_image=config.patches_per_image,
        stride=config.stride if config.sampling == "grid" else 0,
        flip=config.flip,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    train(
        network,
        TrainingData(
            batches=batches,
            validation=_validation_patches(images, pixels, config),
            images=images,
            adapt=lambda model: _learn_whitening(model, images, pixels, config),
            prefix="patch/",
        ),
        config,
        tracker,
        folder,
    )


def _scaled(images: SceneImages, config: PatchBowConfig) -> list[np.ndarray]:
    """The training images at each scale: uint8 [N, S, S, 3]."""
    paths = images.dataset.train.paths
    return [
        images.train if size == config.image_size else load_images(paths, size)
        for size in config.scaled_sizes
    ]


def _validation_patches(
    images: SceneImages, pixels: Sequence[np.ndarray], config: PatchBowConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same random patches of the held-out images for every epoch, with their labels."""
    if not len(images.held_out):
        return None
    held_out = PatchBatches(
        images=pixels,
        owners=images.held_out,
        labels=images.dataset.train.labels,
        patch_size=config.patch_size,
        per_image=VALIDATION_PATCHES,
        stride=0,
        flip=False,
        batch_size=VALIDATION_PATCHES * len(images.held_out),
        seed=config.seed,
    )
    return next(held_out.epoch(0))


def _learn_whitening(
    network: keras.Model,
    images: SceneImages,
    pixels: Sequence[np.ndarray],
    config: PatchBowConfig,
) -> None:
    """Learn the whitening, if the network has one, from patches of the fitted images."""
    if not config.whitening:
        return
    patches = sample_patches(
        pixels,
        config.patch_size,
        whitening_samples(config),
        seed=config.seed,
        owners=images.fitted,
    )
    learn_whitening(network, patches)


def _compare(
    config: PatchBowConfig,
    tracker: Tracker,
    images: SceneImages,
    layers: tuple[str, ...],
    splits: DescribedSplits,
    *,
    unseen: bool,
) -> StageResult:
    comparison = MethodRuns(config, images, tracker, unseen)
    descriptor = f"patch mlp {', '.join(layers)}"
    test, train = (aggregated(split, config.aggregation) for split in (splits.test, splits.train))
    tags = {"descriptor": descriptor, "aggregation": config.aggregation}
    comparison.add_end_to_end(test, train, tags)
    EncodingMethods(config, splits, tracker).compare(comparison, descriptor)
    return comparison.finish()
