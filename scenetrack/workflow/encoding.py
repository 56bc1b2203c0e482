"""Encode local descriptors: an encoder fitted on training images, and an SVM for each kernel."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenetrack.cache import Cache
from scenetrack.cache.entries import entry_name
from scenetrack.config import EncodingConfig
from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.descriptors.aggregation import aggregate
from scenetrack.descriptors.extraction import DescriptorExtractor, LocalDescriptors
from scenetrack.encoders import ImageEncoder
from scenetrack.encoders.base import LocalEncoder
from scenetrack.errors import ConfigError
from scenetrack.records import Artifact, Metric, Tracker
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.learnt_cache import KEPT_ENCODERS, encoder_key, find_encoder, keep_encoder
from scenetrack.workflow.method_runs import Features, MethodRuns

logger = logging.getLogger(__name__)

# Descriptors that an encoder is learnt from, of each word or component, within bounds.
_PER_WORD = 100
_FEWEST, _MOST = 50_000, 250_000


@dataclass(frozen=True)
class DescribedSplits:
    """Local descriptors of both splits.

    Attributes:
        train: of all training images.
        test: of all test images; None where these are left alone.
        positions: float32 [n, 2], middles (y, x) of an image's descriptors, relative to it.
        digest: of all that the training images' descriptors depend on; empty where that is not
            known, and what is learnt from them is not kept.
    """

    train: LocalDescriptors
    test: LocalDescriptors | None
    positions: NDArray[np.float32]
    digest: str = ""


def describe(
    descriptor: DescriptorExtractor, images: SceneImages, tracker: Tracker
) -> DescribedSplits:
    """Compute the descriptors of both splits, or find them in the cache."""
    digest = images.dataset.digest
    source = {"dataset": digest, "split": "train"}
    train = descriptor.describe(images.train, source, "describing train")
    test = None
    if images.test is not None:
        test = descriptor.describe(
            images.test, {"dataset": digest, "split": "test"}, "describing test"
        )
    if descriptor.described:
        tracker.log(Metric("time/descriptors_images_per_s", descriptor.images_per_second))
    learnt_from = entry_name(descriptor.key(images.train, source))
    return DescribedSplits(train, test, descriptor.positions, learnt_from)


@dataclass
class EncodingMethods:
    """The methods of a stage that encodes local descriptors: one SVM for each kernel.

    Args:
        config: of the stage.
        splits: what is encoded.
        tracker: of the stage's run.
    """

    config: EncodingConfig
    splits: DescribedSplits
    tracker: Tracker
    _of_folds: dict[bytes, ImageEncoder] = field(default_factory=dict, init=False, repr=False)

    def add_to(self, methods: MethodRuns, descriptor: str) -> None:
        """Learn the encoder from all training images and add a method for each kernel.

        Args:
            methods: gets the methods.
            descriptor: its tag.
        """
        encoder, seconds = self._learnt()
        self._log(encoder, seconds)
        started = time.perf_counter()
        train = encode(encoder, self.splits.train, "encoding train")
        test, count = None, len(train)
        if self.splits.test is not None:
            test = encode(encoder, self.splits.test, "encoding test")
            count += len(test)
        rate = count / (time.perf_counter() - started)
        self.tracker.log(
            Metric("time/encoding_images_per_s", rate), Metric("features", train.shape[1])
        )
        title = encoder.encoder.about.title
        features = Features(train, test, encoder.preparation, descriptor, title)
        in_fold = self._in_fold if self.config.refit_encoder else None
        for kernel in self.config.svm_kernels:
            started = time.perf_counter()
            classifier = methods.cross_validate(kernel, features, in_fold)
            seconds = time.perf_counter() - started
            methods.add_svm(f"{title} {kernel} svm", classifier, features, seconds)

    def _learnt(self, owners: NDArray[np.int64] | None = None) -> tuple[ImageEncoder, float]:
        """Return the fitted encoder, of this or an earlier run, and the seconds it took."""
        if not self.splits.digest:
            return self._timed(owners)
        key = encoder_key(self.splits.digest, self.config, sample_size(self.config), owners)
        with Cache().made_once(KEPT_ENCODERS, key):
            found = find_encoder(key)
            if found:
                name = ENCODERS[self.config.encoder].title
                logger.info("%s of %d found in the cache", name, self.config.codebook_size)
                return found
            encoder, seconds = self._timed(owners)
            keep_encoder(key, encoder, seconds)
        return encoder, seconds

    def _timed(self, owners: NDArray[np.int64] | None) -> tuple[ImageEncoder, float]:
        started = time.perf_counter()
        return self._learn(owners), time.perf_counter() - started

    def _learn(self, owners: NDArray[np.int64] | None = None) -> ImageEncoder:
        """Fit the encoder to descriptors of the images ``owners``, or of all training images."""
        config, train = self.config, self.splits.train
        values, places = train.sample(sample_size(config), seed=config.seed, owners=owners)
        logger.info(
            "fitting %s with a codebook of %d on %d descriptors",
            ENCODERS[config.encoder].title,
            config.codebook_size,
            len(values),
        )
        encoder = ImageEncoder.learn(
            values,
            self.splits.positions[places],
            build_encoder(config),
            levels=config.pyramid,
            positions=self.splits.positions,
            pca=config.pca,
            square_root=config.square_root,
            position_weight=config.position,
        )
        if not config.tf_idf:
            return encoder
        batches = (part.values for _, part in train.batches("counting words"))
        if owners is not None:
            chosen = np.zeros(len(train.values), np.bool_)
            chosen[owners] = True
            batches = (p.values[chosen[at]] for at, p in train.batches("counting words"))
        return encoder.learn_idf(batches)

    def _in_fold(self, owners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encode all training images by an encoder learnt from ``owners`` alone."""
        fold = owners.tobytes()
        # Every kernel has the same folds, and learning takes longer than encoding.
        if fold not in self._of_folds:
            self._of_folds[fold] = self._learnt(owners)[0]
        return encode(self._of_folds[fold], self.splits.train, "encoding for a fold")

    def _log(self, encoder: ImageEncoder, seconds: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "encoder.npz"
            np.savez(path, allow_pickle=False, **encoder.to_arrays())
            self.tracker.log(Metric("time/codebook_s", seconds), Artifact(path))


def encode(encoder: ImageEncoder, split: LocalDescriptors, task: str) -> NDArray[np.float32]:
    """Encode a split to features [N, W], a few images at a time."""
    return np.concatenate([encoder.encode(part.values) for _, part in split.batches(task)])


def aggregated(split: LocalDescriptors, how: str) -> NDArray[np.float32]:
    """Aggregate the network's patch logits to scores [N, C] of a split's images."""
    none = aggregate(split.logits[:0], how)
    parts = split.batches("putting verdicts together")
    return np.concatenate([none, *(aggregate(part.logits, how) for _, part in parts)])


def build_encoder(config: EncodingConfig) -> LocalEncoder:
    """Return the encoder that the settings ask for, not yet fitted."""
    about = ENCODERS[config.encoder]
    settings = {name: getattr(config, name) for name in about.settings}
    encoder: LocalEncoder = about.kind(config.codebook_size, random_state=config.seed, **settings)
    return encoder


def sample_size(config: EncodingConfig) -> int:
    """Return how many descriptors the encoder is learnt from."""
    wanted = ENCODERS[config.encoder].sample_per_item * config.codebook_size
    return int(np.clip(wanted, _FEWEST, max(_MOST, _PER_WORD * config.codebook_size)))


def check_pca(pca: int, width: int, what: str) -> None:
    """Raise ConfigError where PCA is to keep more values than a descriptor has."""
    if pca > width:
        raise ConfigError(
            f"PCA keeps at most the {width} values of {what}. Received: pca={pca}; choose fewer, "
            "or 0 for none"
        )
