"""Task 5: a patch network, its descriptors as a bag of words with SVMs, against end to end."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import PatchBowConfig
from scenetrack.data.patches import PatchBatches, PatchGrid, sample_patches
from scenetrack.descriptors import LayerDescriptor, aggregate
from scenetrack.encoders import BagOfWords, DescriptorPca, SceneEncoder
from scenetrack.errors import ConfigError
from scenetrack.export.dense import Dense
from scenetrack.models import learn_whitening, whitening_samples
from scenetrack.records import Artifact, Metric, Tracker
from scenetrack.stages.inputs import SceneImages
from scenetrack.stages.methods import Comparison, Features
from scenetrack.stages.network import (
    TrainingData,
    choose_network,
    descriptor_width,
    export_descriptor,
    train,
)
from scenetrack.stages.result import StageResult

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

PCA_SAMPLES = 50_000
CODEBOOK_SAMPLES_PER_WORD = 100
VALIDATION_PATCHES = 20  # of each held-out image


def patch_bow(config: PatchBowConfig, tracker: Tracker) -> StageResult:
    """One parent run; child runs ``end to end`` and one for each SVM kernel.

    Raises:
        InputError: the data, the model or the layer cannot be used.
    """
    chosen = choose_network(config, tracker, "patch_size")
    network, layer, images = chosen.network, chosen.layer, chosen.images
    _check_pca(config.pca, descriptor_width(network, layer), layer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.is_new:
            _train(network, images, config, tracker, folder)
        dense = Dense(config.stride, config.form, config.device)
        onnx = export_descriptor(network, layer, images, config, tracker, folder, dense)
        grid = PatchGrid(config.image_size, config.patch_size, config.stride)
        descriptor = LayerDescriptor(onnx, grid)
        encoder = _learn_encoder(descriptor, images, config, tracker, folder)
        train, test = (
            _encode(descriptor, encoder, pixels, config.aggregation, split)
            for pixels, split in ((images.train, "train"), (images.test, "test"))
        )
    tracker.log(Metric("time/descriptors_images_per_s", descriptor.images_per_second))
    return _compare(config, tracker, images, layer, train, test, unseen=chosen.is_new)


def _train(
    network: keras.Model,
    images: SceneImages,
    config: PatchBowConfig,
    tracker: Tracker,
    folder: Path,
) -> None:
    labels = images.dataset.train.labels
    batches = PatchBatches(
        images=images.train,
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
            validation=_validation_patches(images, config),
            digest=images.dataset.digest,
            adapt=lambda model: _learn_whitening(model, images, config),
            prefix="patch/",
        ),
        config,
        tracker,
        folder,
    )


def _validation_patches(
    images: SceneImages, config: PatchBowConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same random patches of the held-out images for every epoch, with their labels."""
    if not len(images.held_out):
        return None
    held_out = PatchBatches(
        images=images.train,
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


def _learn_whitening(network: keras.Model, images: SceneImages, config: PatchBowConfig) -> None:
    """Learn the whitening, if the network has one, from patches of the fitted images."""
    if not config.whitening:
        return
    patches = sample_patches(
        images.train,
        config.patch_size,
        whitening_samples(config),
        seed=config.seed,
        owners=images.fitted,
    )
    learn_whitening(network, patches)


def _learn_encoder(
    descriptor: LayerDescriptor,
    images: SceneImages,
    config: PatchBowConfig,
    tracker: Tracker,
    folder: Path,
) -> SceneEncoder:
    """PCA and codebook of random training patches' descriptors; the test images have no part."""
    started = time.perf_counter()
    pca = None
    if config.pca:
        sample = descriptor.sample(images.train, PCA_SAMPLES, seed=config.seed)
        pca = DescriptorPca(config.pca).fit(sample)
    count = CODEBOOK_SAMPLES_PER_WORD * config.codebook_size
    words = BagOfWords(config.codebook_size, random_state=config.seed)
    encoder = SceneEncoder(words, ("1x1",), descriptor.grid.centres, pca)
    logger.info("learning %d visual words from %d descriptors", config.codebook_size, count)
    projected = np.concatenate(
        [
            encoder.project(descriptor.sample(images.train, part, seed=config.seed + 1 + index))
            for index, part in enumerate(_parts(count, PCA_SAMPLES))
        ]
    )
    words.fit(projected)
    path = folder / "encoder.npz"
    np.savez(path, allow_pickle=False, **encoder.to_arrays())
    tracker.log(Metric("time/codebook_s", time.perf_counter() - started), Artifact(path))
    return encoder


def _parts(total: int, largest: int) -> list[int]:
    """``total`` as a sum of parts of at most ``largest``."""
    whole, rest = divmod(total, largest)
    return [largest] * whole + ([rest] if rest else [])


@dataclass(frozen=True)
class Encoded:
    """A split's images: histograms float32 [N, K] and aggregated logits float32 [N, C]."""

    histograms: np.ndarray
    scores: np.ndarray


def _encode(
    descriptor: LayerDescriptor,
    encoder: SceneEncoder,
    pixels: np.ndarray,
    aggregation: str,
    split: str,
) -> Encoded:
    """One pass over a split's patches: only a few images' descriptors exist at a time."""
    histograms, scores = [], []
    for local in descriptor.describe(pixels, f"describing {split}"):
        histograms.append(encoder.encode(local.values))
        scores.append(aggregate(local.logits, aggregation))
    return Encoded(np.concatenate(histograms), np.concatenate(scores))


def _compare(
    config: PatchBowConfig,
    tracker: Tracker,
    images: SceneImages,
    layer: str,
    train: Encoded,
    test: Encoded,
    *,
    unseen: bool,
) -> StageResult:
    comparison = Comparison(config, images, tracker, unseen)
    tags = {"descriptor": f"patch mlp {layer}", "aggregation": config.aggregation}
    comparison.add_end_to_end(test.scores, train.scores, tags)
    tags = {"descriptor": tags["descriptor"], "encoder": "bag of words"}
    features = Features(train.histograms, test.histograms, "square_root", tags)
    for kernel in config.kernels:
        started = time.perf_counter()
        classifier = comparison.cross_validate(kernel, features)
        seconds = time.perf_counter() - started
        comparison.add_svm(f"bag of words {kernel} svm", classifier, features, seconds)
    return comparison.finish()


def _check_pca(pca: int, width: int, layer: str) -> None:
    if pca > width:
        raise ConfigError(
            f"PCA keeps at most the {width} values of layer {layer}. Received: pca={pca}; "
            "choose fewer, or 0 for none"
        )
