"""A finished method in Python: scores in bounded batches, and parts that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_pipelines import CLASSES, SIZE, image_pipeline, patch_pipeline, scenes, whole_network

from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import ModelError
from scenetrack.graphs.builder import GraphBuilder


@pytest.mark.parametrize("kernel", ["", "chi2"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_do_not_depend_on_the_batches(kernel: str, batch_size: int) -> None:
    images, _ = scenes(10)
    pipeline = patch_pipeline(kernel)
    scores = pipeline.scores(images, batch_size)
    assert (scores.dtype, scores.shape) == (np.float64, (10, 3))
    np.testing.assert_allclose(scores, pipeline.scores(images, 10), rtol=0, atol=1e-12)


def test_end_to_end_scores_are_the_mean_of_the_patches() -> None:
    images, _ = scenes(4)
    pipeline = patch_pipeline()
    logits = pipeline.session.run(images=images)["logits"].astype(np.float64)
    np.testing.assert_allclose(pipeline.scores(images), logits.mean(axis=(1, 2)), atol=1e-12)


def test_whole_images_are_scored_by_their_logits_or_by_the_svm() -> None:
    images, _ = scenes(4)
    network = image_pipeline()
    outputs = network.session.run(images=images)
    np.testing.assert_array_equal(network.scores(images), outputs["logits"])
    svm = image_pipeline("rbf")
    expected = svm.classifier.predict_scores(outputs["descriptors"])
    np.testing.assert_array_equal(svm.scores(images), expected)


def test_it_has_learnt_something() -> None:
    images, labels = scenes(30, seed=9)
    assert np.mean(patch_pipeline("rbf").scores(images).argmax(axis=1) == labels) > 0.8


def test_no_images_have_no_scores() -> None:
    none = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    assert patch_pipeline("linear").scores(none).shape == (0, 3)


def test_probabilities_keep_the_order() -> None:
    scores = patch_pipeline("linear").scores(scenes(9)[0])
    for temperature in (0.1, 1.0, 10.0):
        shares = patch_pipeline("linear", temperature=temperature).probabilities(scores)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        np.testing.assert_array_equal(shares.argsort(axis=1), scores.argsort(axis=1))


def test_patch_logits_need_an_aggregation() -> None:
    with pytest.raises(ModelError, match=r"one of: mean, max, vote\. Received: ''"):
        patch_pipeline(aggregation="")


def test_words_need_local_descriptors() -> None:
    encoder = patch_pipeline("linear").encoder
    with pytest.raises(ModelError, match="an encoder needs local descriptors"):
        ScenePipeline(whole_network(), CLASSES, SIZE, encoder=encoder)


def test_an_encoder_needs_a_classifier() -> None:
    with pytest.raises(ModelError, match="an encoder needs a classifier"):
        replace(patch_pipeline("linear"), classifier=None)


def test_the_classifier_must_know_the_classes() -> None:
    with pytest.raises(ModelError, match=r"a classifier of the 4 classes .* labels \[0, 1, 2\]"):
        replace(patch_pipeline("linear"), classes=(*CLASSES, "tower"))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_the_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ModelError, match="temperature above 0 is required"):
        image_pipeline(temperature=temperature)


def test_a_network_without_logits_needs_a_classifier() -> None:
    builder = GraphBuilder("other")
    images = builder.input("images", np.uint8, ["batch", 4, 4, 3])
    builder.output("pixels", images, np.uint8, ["batch", 4, 4, 3])
    with pytest.raises(ModelError, match="the output logits, or a classifier, is required"):
        ScenePipeline(builder.build({}), CLASSES, 4)
