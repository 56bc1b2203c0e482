"""Task 5: a patch network, its descriptors encoded for SVMs, against end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import PatchBowConfig
from scenetrack.data.images import load_images
from scenetrack.data.patches import PatchBatches, PatchGrid, sample_patches
from scenetrack.descriptors.extraction import DescriptorExtractor
from scenetrack.export.dense import Dense
from scenetrack.export.scales import positions
from scenetrack.graphs.digest import model_digest
from scenetrack.networks.patch_mlp import learn_whitening, whitening_samples
from scenetrack.records import Tracker
from scenetrack.workflow.dataset import SceneImages, open_images
from scenetrack.workflow.descriptor_export import export_layers, open_descriptor
from scenetrack.workflow.encoding import EncodingMethods, aggregated, check_pca, describe
from scenetrack.workflow.method_runs import MethodRuns
from scenetrack.workflow.network import check_never_negative, plan_network
from scenetrack.workflow.network_training import TrainingData, train_network
from scenetrack.workflow.result import StageResult

if TYPE_CHECKING:
    import keras

VALIDATION_PATCHES = 20  # of each held-out image
_TRIED_PATCHES = 512


def patch_bow(config: PatchBowConfig, tracker: Tracker) -> StageResult:
    """Run the stage: one parent run, child runs ``end to end`` and one for each SVM kernel.

    Raises:
        InputError: the data, the model or the layers cannot be used.
    """
    plan = plan_network(config, "patch_size")
    check_pca(config.pca, plan.width, f"layer {plan.layer_names}")
    images = plan.judging_images(open_images(config, tracker, config.image_size, config.validation))
    network = plan.network_for(images.dataset)
    if config.square_root:
        check_never_negative(network, plan.layers, _tried_patches(network, images, config))
    if plan.is_new:
        train_network(network, _training_patches(images, config), config, tracker)

    grids = [PatchGrid(size, config.patch_size, config.stride) for size in config.scaled_sizes]
    dense = Dense(config.stride, config.form, config.device)
    graph = export_layers(network, plan.layers, images, config, tracker, dense, grids)
    onnx = open_descriptor(graph, config, tracker)
    splits = describe(
        DescriptorExtractor(onnx, model_digest(graph), positions(grids)), images, tracker
    )

    name = f"patch mlp {plan.layer_names}"
    methods = MethodRuns(config, images, tracker, network=True)
    train_scores = aggregated(splits.train, config.aggregation)
    test_scores = aggregated(splits.test, config.aggregation) if splits.test else None
    methods.add_end_to_end(train_scores, test_scores, name, config.aggregation)
    EncodingMethods(config, splits, tracker).add_to(methods, name)
    return methods.finish()


def _training_patches(images: SceneImages, config: PatchBowConfig) -> TrainingData:
    """Draw random or grid patches of the fitted images at each scale; whitening is learnt first."""
    train = images.dataset.train
    pixels = [
        images.train if size == config.image_size else load_images(train.paths, size, train.digests)
        for size in config.scaled_sizes
    ]
    batches = PatchBatches(
        images=pixels,
        owners=images.fitted,
        labels=train.labels,
        patch_size=config.patch_size,
        per_image=config.patches_per_image,
        stride=config.stride if config.sampling == "grid" else 0,
        flip=config.flip,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    return TrainingData(
        batches=batches,
        validation=_validation_patches(images, pixels, config),
        images=images,
        adapt=lambda network: _learn_whitening(network, images, pixels, config),
        prefix="patch/",
    )


def _validation_patches(
    images: SceneImages, pixels: Sequence[np.ndarray], config: PatchBowConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw the same random patches of the held-out images for every epoch, with their labels."""
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
    if config.whitening:
        samples = whitening_samples(config)
        learn_whitening(network, _sample(images, pixels, samples, config))


def _tried_patches(network: keras.Model, images: SceneImages, config: PatchBowConfig) -> np.ndarray:
    """Draw patches uint8 [N, P, P, 3] to try the untrained network on."""
    samples = max(_TRIED_PATCHES, 2 * config.whitening)
    patches = _sample(images, [images.train], samples, config)
    if not config.model:
        # Until it is learnt, anew with more patches, whitening makes all patches equal.
        learn_whitening(network, patches)
    return patches[:_TRIED_PATCHES]


def _sample(
    images: SceneImages, pixels: Sequence[np.ndarray], count: int, config: PatchBowConfig
) -> np.ndarray:
    """Draw random patches uint8 [count, P, P, 3] of the fitted images."""
    return sample_patches(pixels, config.patch_size, count, seed=config.seed, owners=images.fitted)
