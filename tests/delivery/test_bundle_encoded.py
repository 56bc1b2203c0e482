"""Bundles of descriptors without a grid: of several image sizes, and handcrafted ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_pipelines import (
    CLASSES,
    SIFT,
    SIZE,
    SIZES,
    encoded_pipeline,
    metadata,
    scenes,
    sift_network,
    sizes_network,
)

from scenetrack.config import AGGREGATIONS
from scenetrack.delivery.bundle import build_bundle, verify_bundle, with_evidence
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.encoders import BagOfWords, FisherVector, LocalEncoder, Vlad
from scenetrack.errors import ModelError
from scenetrack.export.scales import positions
from scenetrack.graphs.runtime import OnnxModel

NETWORKS = {
    "sizes": lambda: (sizes_network(), positions(SIZES)),
    "sift": lambda: (sift_network(), SIFT["grey"].positions),
    "opponent sift": lambda: (sift_network("opponent"), SIFT["opponent"].positions),
}
# An encoder, the kernel on it and how it is learnt.
ENCODERS: dict[str, tuple[Callable[[], LocalEncoder], str, dict[str, Any]]] = {
    "words": (lambda: BagOfWords(8, iterations=5), "chi2", {}),
    "words of roots": (lambda: BagOfWords(8, iterations=5), "rbf", {"square_root": True}),
    "shares, rare ones more": (
        lambda: BagOfWords(
            8, iterations=5, assignment="soft", tf_idf=True, normalisation="hellinger"
        ),
        "linear",
        {"levels": ("1x1", "2x2"), "pca": 4},
    ),
    "vlad": (lambda: Vlad(4), "linear", {"levels": ("1x1", "3x1"), "pca": 5}),
    "fisher vector": (
        lambda: FisherVector(3),
        "linear",
        {"levels": ("1x1", "1x2"), "pca": 4, "position_weight": 1.0},
    ),
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return scenes(21, seed=5)[0]


def pipeline_of(network: str, encoder: str) -> ScenePipeline:
    make, kernel, learn = ENCODERS[encoder]
    return encoded_pipeline(*NETWORKS[network](), make(), kernel, **learn)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_file_agrees_with_python(network: str, encoder: str, images: np.ndarray) -> None:
    pipeline = pipeline_of(network, encoder)
    bundle = build_bundle(pipeline, {})
    report = verify_bundle(bundle, pipeline, images)
    assert (report.images, report.batch_sizes) == (21, (1, 16))
    assert report.max_difference <= 1e-5
    found = OnnxModel(bundle.SerializeToString(), device="cpu").run(images=images)
    scores = pipeline.scores(images)
    np.testing.assert_array_equal(found["label"], scores.argmax(axis=1))
    np.testing.assert_allclose(found["probabilities"], pipeline.probabilities(scores), atol=1e-6)
    assert len(set(found["label"])) == len(CLASSES)


def test_it_has_learnt_something() -> None:
    images, labels = scenes(30, seed=9)
    found = pipeline_of("sizes", "vlad").scores(images).argmax(axis=1)
    assert np.mean(found == labels) > 0.7


@pytest.mark.parametrize("network", NETWORKS)
def test_places_without_a_grid_have_no_evidence(network: str) -> None:
    pipeline = pipeline_of(network, "words")
    assert pipeline.encoder is not None
    assert pipeline.encoder.explains
    assert not pipeline.has_evidence
    bundle = build_bundle(pipeline, {})
    assert metadata(bundle)["evidence"] == ""
    with pytest.raises(ModelError, match="a bundle of a method on patches is required"):
        with_evidence(bundle)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_patches_of_all_sizes_vote_together(aggregation: str, images: np.ndarray) -> None:
    pipeline = ScenePipeline(sizes_network(), CLASSES, SIZE, aggregation=aggregation)
    assert not pipeline.has_evidence
    report = verify_bundle(build_bundle(pipeline, {}), pipeline, images)
    assert report.max_difference <= 1e-5
    logits = pipeline.session.run(images=images)["logits"].astype(np.float64)
    assert logits.shape == (21, 25 + 4, 3)
    votes = np.eye(3)[logits.argmax(axis=2)].mean(axis=1)
    expected = {"mean": logits.mean(axis=1), "max": logits.max(axis=1), "vote": votes}
    np.testing.assert_allclose(pipeline.scores(images), expected[aggregation], atol=1e-6)


def test_what_is_handcrafted_says_nothing_without_a_classifier() -> None:
    with pytest.raises(ModelError, match="the output logits, or a classifier, is required"):
        replace(pipeline_of("sift", "vlad"), encoder=None, classifier=None)
    assert pipeline_of("sift", "vlad").scores(scenes(0)[0]).shape == (0, 3)
