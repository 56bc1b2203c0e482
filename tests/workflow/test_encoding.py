"""Encoders of a stage: what they are learnt from, and what of it no held-out image can change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.classifiers import FoldFeatures
from scenetrack.config import HandcraftedConfig
from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.descriptors import extraction as descriptors
from scenetrack.descriptors.extraction import LocalDescriptors
from scenetrack.encoders import BagOfWords, FisherVector, ImageEncoder, Vlad
from scenetrack.errors import ConfigError
from scenetrack.records import Artifact, MemoryTracker
from scenetrack.workflow import encoding
from scenetrack.workflow.encoding import (
    DescribedSplits,
    EncodingMethods,
    aggregated,
    build_encoder,
    check_pca,
    encode,
    sample_size,
)
from scenetrack.workflow.method_runs import Features

TRAIN, TEST, PLACES, WIDTH = 12, 5, 4, 3
POSITIONS = np.array([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]], np.float32)
MARKER = 1000.0
OWNERS = np.arange(0, TRAIN, 2)
HELD_OUT = np.arange(1, TRAIN, 2)
# Everything that is learnt: PCA, words, their frequencies, the sharpness of shares, the weight of
# places, VLAD's centres, the mixture.
LEARNT: dict[str, dict[str, Any]] = {
    "words": {"pca": 2, "kernels": ("linear",)},
    "shares": {"assignment": "soft", "pca": 0, "kernels": ("linear",)},
    # Of so many words each is in some images only.
    "rare words": {"tf_idf": True, "codebook_size": 12, "pca": 0, "kernels": ("linear",)},
    "vlad": {"encoder": "vlad", "pca": 2, "pyramid": ("1x1", "2x1")},
    "fisher vector": {"encoder": "fisher_vector", "pca": 2, "position": 1.0},
}


@dataclass
class Watched:
    """Stands for a comparison: keeps what a stage hands to it."""

    features: dict[str, Features] = field(default_factory=dict)
    in_fold: dict[str, FoldFeatures | None] = field(default_factory=dict)
    added: dict[str, tuple[str, Features]] = field(default_factory=dict)

    def cross_validate(self, kernel: str, features: Features, in_fold: FoldFeatures | None) -> str:
        self.features[kernel], self.in_fold[kernel] = features, in_fold
        return kernel

    def add_svm(self, name: str, classifier: str, features: Features, seconds: float) -> None:
        assert seconds >= 0
        self.added[name] = classifier, features


@pytest.fixture
def _few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_FEWEST", 300)
    fisher = dataclasses.replace(ENCODERS["fisher_vector"], sample_per_item=100)
    monkeypatch.setitem(ENCODERS, "fisher_vector", fisher)


def local(count: int, seed: int) -> LocalDescriptors:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, size=(count, PLACES, WIDTH)) * [4, 2, 1]
    return LocalDescriptors(values.astype(np.float32), np.zeros((count, PLACES, 0), np.float32))


def splits() -> DescribedSplits:
    return DescribedSplits(local(TRAIN, 0), local(TEST, 1), POSITIONS)


def marked(images: LocalDescriptors, which: np.ndarray) -> LocalDescriptors:
    """The same descriptors, but for those of some images, which are far from all others."""
    values = np.array(images.values)
    values[which] = MARKER + values[which] ** 2
    return replace(images, values=values)


def config(**changes: object) -> HandcraftedConfig:
    settings: dict[str, Any] = {"codebook_size": 3, "refit_encoder": True, **changes}
    return HandcraftedConfig(**settings)


def compared(settings: Mapping[str, Any], described: DescribedSplits) -> Watched:
    """What a stage with these settings and descriptors hands to the comparison."""
    watched, tracker = Watched(), MemoryTracker()
    EncodingMethods(config(**settings), described, tracker).add_to(watched, "made up")  # type: ignore[arg-type]
    return watched


def of_a_fold(settings: Mapping[str, Any], described: DescribedSplits) -> np.ndarray:
    """Features [TRAIN, W] by an encoder of the images ``OWNERS``."""
    in_fold = compared(settings, described).in_fold["linear"]
    assert in_fold is not None
    return np.asarray(in_fold(OWNERS))


@pytest.mark.usefixtures("_few_descriptors")
class TestFolds:
    @pytest.mark.parametrize("name", LEARNT)
    def test_what_is_held_out_changes_nothing_of_the_others(self, name: str) -> None:
        plain = splits()
        other = replace(plain, train=marked(plain.train, HELD_OUT))
        expected, found = (of_a_fold(LEARNT[name], one) for one in (plain, other))
        assert len(found) == TRAIN
        assert np.array_equal(found[OWNERS], expected[OWNERS])
        assert not np.array_equal(found[HELD_OUT], expected[HELD_OUT])

    @pytest.mark.parametrize("name", LEARNT)
    def test_an_encoder_of_all_images_would_have_noticed(self, name: str) -> None:
        plain = splits()
        other = replace(plain, train=marked(plain.train, HELD_OUT))
        expected, found = (
            compared(LEARNT[name], one).features["linear"].train for one in (plain, other)
        )
        assert not np.allclose(found[OWNERS], expected[OWNERS])

    def test_the_sample_of_a_fold_holds_no_marker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[np.ndarray] = []
        learn = ImageEncoder.learn

        def watch(values: np.ndarray, *arguments: Any, **options: Any) -> ImageEncoder:
            seen.append(values)
            return learn(values, *arguments, **options)

        monkeypatch.setattr(ImageEncoder, "learn", watch)
        plain = splits()
        of_a_fold(LEARNT["vlad"], replace(plain, train=marked(plain.train, HELD_OUT)))
        once, fold = seen
        # All there are, for they are fewer than asked for.
        assert (len(once), len(fold)) == (48, 24)
        assert once.max() > MARKER > fold.max()

    def test_all_kernels_share_the_encoder_of_a_fold(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "scenetrack")
        watched = compared({"pca": 2, "kernels": ("linear", "chi2")}, splits())
        first, second = watched.in_fold.values()
        assert first is not None
        assert second is not None
        assert np.array_equal(first(OWNERS), second(OWNERS))
        assert not np.array_equal(first(OWNERS), second(HELD_OUT))
        # Of all images, of one fold, of the other.
        assert sum("fitting bag of words" in line for line in caplog.messages) == 3

    def test_without_it_the_encoder_is_learnt_once(self) -> None:
        settings = {**LEARNT["words"], "refit_encoder": False, "kernels": ("linear", "chi2")}
        assert compared(settings, splits()).in_fold == {"linear": None, "chi2": None}


@pytest.mark.usefixtures("_few_descriptors")
class TestCompare:
    @pytest.mark.parametrize("name", LEARNT)
    def test_test_images_change_nothing_that_is_learnt(self, name: str) -> None:
        plain = splits()
        other = replace(plain, test=marked(plain.test, np.arange(TEST)))
        expected, found = (compared(LEARNT[name], one).features["linear"] for one in (plain, other))
        assert np.array_equal(found.train, expected.train)
        assert not np.array_equal(found.test, expected.test)

    def test_a_method_for_each_kernel_on_the_same_features(self) -> None:
        watched = compared({"pca": 2, "kernels": ("auto",)}, splits())
        kernels = ("linear", "rbf", "chi2", "intersection")
        assert list(watched.added) == [f"bag of words {kernel} svm" for kernel in kernels]
        assert [kernel for kernel, _ in watched.added.values()] == list(kernels)
        (features,) = {id(one): one for _, one in watched.added.values()}.values()
        assert features.preparation == "square_root"
        assert (features.descriptor, features.encoder) == ("made up", "bag of words")
        assert (features.train.shape, features.test.shape) == ((TRAIN, 3), (TEST, 3))
        np.testing.assert_allclose(features.train.sum(axis=1), 1, rtol=1e-6)

    def test_what_the_run_keeps(self) -> None:
        tracker = MemoryTracker()
        settings = config(**LEARNT["vlad"])
        EncodingMethods(settings, splits(), tracker).add_to(Watched(), "")  # type: ignore[arg-type]
        found = tracker.metrics()
        assert set(found) == {"time/codebook_s", "time/encoding_images_per_s", "features"}
        assert found["features"] == 3 * 2 * 3  # centres, dimensions, regions
        (artifact,) = (one for one in tracker.records if isinstance(one, Artifact))
        assert artifact.path.name == "encoder.npz"

    def test_the_seed_decides(self) -> None:
        def features(seed: int) -> np.ndarray:
            return compared({"pca": 2, "seed": seed}, splits()).features["linear"].train

        assert np.array_equal(features(1), features(1))
        assert not np.array_equal(features(1), features(2))


@pytest.mark.parametrize("at_once", [1, 9, 10**6])
def test_batches_change_no_feature(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "PATCHES_AT_ONCE", at_once)
    train = local(TRAIN, 0)
    sample = train.values.reshape(-1, WIDTH)
    encoder = ImageEncoder.learn(
        sample,
        np.tile(POSITIONS, (TRAIN, 1)),
        Vlad(3),
        levels=("1x1",),
        positions=POSITIONS,
        pca=2,
        square_root=False,
        position_weight=0.0,
    )
    found = encode(encoder, train, "encoding")
    assert np.array_equal(found, encoder.encode(train.values))
    logits = np.arange(TRAIN * PLACES * 2, dtype=np.float32).reshape(TRAIN, PLACES, 2)
    scores = aggregated(replace(train, logits=logits), "mean")
    # Of an image's four patches 0, 2, 4 and 6 the mean is 3; the next image begins at 8.
    np.testing.assert_array_equal(scores[:, 0], 3 + 8 * np.arange(TRAIN))


class TestSampleSize:
    @pytest.mark.parametrize(
        ("encoder", "codebook_size", "expected"),
        [
            ("bag_of_words", 16, 50_000),  # 1,600 are too few for anything
            ("bag_of_words", 1024, 102_400),
            ("vlad", 64, 50_000),
            ("vlad", 600, 60_000),
            ("fisher_vector", 20, 50_000),
            ("fisher_vector", 100, 200_000),
            ("fisher_vector", 256, 250_000),
            # However many words, 100 for each.
            ("bag_of_words", 4096, 409_600),
            ("fisher_vector", 4096, 409_600),
        ],
    )
    def test_by_hand(self, encoder: str, codebook_size: int, expected: int) -> None:
        assert sample_size(config(encoder=encoder, codebook_size=codebook_size)) == expected

    @given(st.sampled_from(["bag_of_words", "vlad", "fisher_vector"]), st.integers(2, 65_535))
    def test_it_is_enough_and_grows_with_the_words(self, encoder: str, words: int) -> None:
        fewer, more = (
            sample_size(config(encoder=encoder, codebook_size=count))
            for count in (words, words + 1)
        )
        assert words < fewer <= more


class TestBuildEncoder:
    def test_words(self) -> None:
        settings = config(
            codebook_size=7, seed=5, assignment="soft", tf_idf=True, normalisation="hellinger"
        )
        words = build_encoder(settings)
        assert isinstance(words, BagOfWords)
        assert (words.codebook_size, words.random_state) == (7, 5)
        assert (words.assignment, words.tf_idf, words.normalisation) == ("soft", True, "hellinger")
        assert not hasattr(words, "codebook_")

    @pytest.mark.parametrize(("name", "kind"), [("vlad", Vlad), ("fisher_vector", FisherVector)])
    def test_others(self, name: str, kind: type[Vlad] | type[FisherVector]) -> None:
        found = build_encoder(config(encoder=name, codebook_size=9, seed=4))
        assert isinstance(found, kind)
        assert (found.codebook_size, found.random_state) == (9, 4)


def test_pca_keeps_no_more_than_there_is() -> None:
    check_pca(0, 5, "layer a")
    check_pca(5, 5, "layer a")
    with pytest.raises(ConfigError, match=r"at most the 5 values of layer a\. Received: pca=6"):
        check_pca(6, 5, "layer a")
