"""What a finished method's child run says: temperatures never come from the test images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from splits import split_of

from scenetrack.classifiers import out_of_fold_scores, refit
from scenetrack.config import LayerSvmConfig
from scenetrack.data.dataset import SceneDataset, Split
from scenetrack.evaluation.temperature_scaling import fit_temperature, log_loss, softmax
from scenetrack.records import MemoryTracker, Param
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.method_runs import END_TO_END, Features, MethodRuns

CLASSES = ("coast", "forest", "street")
NONE = np.zeros(0, np.int64)


def split(count: int) -> Split:
    labels = np.arange(count, dtype=np.int64) % 3
    paths = tuple(Path(CLASSES[label], f"{i}.jpg") for i, label in enumerate(labels))
    return split_of(paths, labels)


@pytest.fixture
def images() -> SceneImages:
    dataset = SceneDataset("small", Path("small"), CLASSES, split(45), split(12), "0" * 16, ())
    train, test = (np.zeros((len(part), 2, 2, 3), np.uint8) for part in (split(45), split(12)))
    return SceneImages(dataset, train, test, np.arange(30), np.arange(30, 45))


@pytest.fixture
def features() -> Features:
    rng = np.random.default_rng(0)
    train, test = (
        (np.eye(3)[part.labels] + rng.standard_normal((len(part), 3))).astype(np.float32)
        for part in (split(45), split(12))
    )
    return Features(train, test, preparation="standardise", descriptor="made up")


def compared(images: SceneImages, features: Features, *, network: bool) -> MemoryTracker:
    """The parent run of the network's verdict and of one SVM; the features serve as scores."""
    tracker = MemoryTracker()
    comparison = MethodRuns(LayerSvmConfig(folds=3), images, tracker, network)
    comparison.add_end_to_end(features.train, features.test, "made up")
    classifier = comparison.cross_validate("linear", features)
    comparison.add_svm("svm", classifier, features, 0.0)
    return tracker


def test_the_networks_temperature_is_that_of_the_held_out_images(
    images: SceneImages, features: Features
) -> None:
    found = compared(images, features, network=True).children[END_TO_END].metrics()
    held, labels = features.train[30:], images.dataset.train.labels[30:]
    assert found["temperature"] == fit_temperature(held, labels)
    shares = softmax(held, found["temperature"])
    assert found["val/log_loss"] == pytest.approx(log_loss(shares, labels), rel=0.1)
    assert found["val/accuracy"] == np.mean(held.argmax(axis=1) == labels)


def test_an_svms_temperature_is_that_of_images_it_was_not_fitted_on(
    images: SceneImages, features: Features
) -> None:
    found = compared(images, features, network=True).children["svm"].metrics()
    comparison = MethodRuns(LayerSvmConfig(folds=3), images, MemoryTracker(), True)
    classifier = comparison.cross_validate("linear", features)
    labels = images.dataset.train.labels
    without = refit(classifier, features.train[:30], labels[:30])
    scores = without.predict_scores(features.train[30:])
    assert found["temperature"] == fit_temperature(scores, labels[30:])
    assert found["val/log_loss"] < np.log(3)


def test_given_temperatures_serve_where_nothing_is_held_out(
    images: SceneImages, features: Features
) -> None:
    images = replace(images, fitted=np.arange(45), held_out=NONE)
    config = LayerSvmConfig(folds=3, validation=0, temperatures="end to end=2.5; svm=0.25")
    tracker = MemoryTracker()
    comparison = MethodRuns(config, images, tracker, True)
    comparison.add_end_to_end(features.train, features.test, "made up")
    comparison.add_svm("svm", comparison.cross_validate("linear", features), features, 0.0)
    for name, temperature in ((END_TO_END, 2.5), ("svm", 0.25)):
        assert tracker.children[name].metrics()["temperature"] == temperature
    found = comparison.evaluations[END_TO_END].probabilities
    np.testing.assert_allclose(found, softmax(features.test, 2.5))


def test_without_a_network_the_folds_give_the_temperature(
    images: SceneImages, features: Features
) -> None:
    svm = compared(images, features, network=False).children["svm"].metrics()
    comparison = MethodRuns(LayerSvmConfig(folds=3), images, MemoryTracker(), False)
    classifier = comparison.cross_validate("linear", features)
    labels = images.dataset.train.labels
    scores = out_of_fold_scores(classifier, features.train, labels, 3, seed=0)
    assert svm["temperature"] == fit_temperature(scores, labels)
    assert "cv/accuracy" in svm
    assert not {"val/log_loss", "val/accuracy", "train/cv_accuracy"} & set(svm)


def test_images_that_a_network_knows_neither_judge_nor_calibrate(
    images: SceneImages, features: Features
) -> None:
    images = replace(images, fitted=np.arange(45), held_out=NONE)
    tracker = compared(images, features, network=True)
    network, svm = (tracker.children[name].metrics() for name in (END_TO_END, "svm"))
    assert network["temperature"] == svm["temperature"] == 1.0
    assert "train/cv_accuracy" in svm
    assert not {"val/log_loss", "val/accuracy", "cv/accuracy"} & (set(network) | set(svm))
    other = compared(replace(images, network_knows=False), features, network=True)
    assert "cv/accuracy" in other.children["svm"].metrics()


@pytest.mark.parametrize("on_held_out", [True, False])
def test_random_labels_give_chance(on_held_out: bool) -> None:
    # Descriptors of a network that knows 240 images by heart, and says nothing of the other 120.
    rng = np.random.default_rng(0)
    labels = np.arange(360) % 6
    paths = [Path(str(label), f"{place}.jpg") for place, label in enumerate(labels)]
    part = split_of(paths, labels)
    names = tuple("abcdef")
    dataset = SceneDataset("random", Path("random"), names, part, part, "0" * 16, ())
    pixels = np.zeros((360, 2, 2, 3), np.uint8)
    images = SceneImages(dataset, pixels, None, np.arange(240), np.arange(240, 360))
    found: dict[str, list[float]] = {"val/accuracy": [], "parent": []}
    for _ in range(4):
        values = rng.standard_normal((360, 8)).astype(np.float32)
        values[:240, :6] += 5 * np.eye(6, dtype=np.float32)[labels[:240]]
        tracker = MemoryTracker()
        methods = MethodRuns(LayerSvmConfig(folds=3), images, tracker, network=True)
        made_up = Features(values, None, preparation="standardise", descriptor="made up")
        for kernel in ("linear", "rbf"):
            classifier = methods.cross_validate(kernel, made_up, on_held_out=on_held_out)
            methods.add_svm(kernel, classifier, made_up, 0.0)
        methods.finish()
        for child in tracker.children.values():
            assert "cv/accuracy" not in child.metrics()
            found["val/accuracy"].append(child.metrics()["val/accuracy"])
        found["parent"].append(tracker.metrics()["val/accuracy"])
    # 480 judgements: the standard error of a share of 1/6 is 0.017.
    for shares in found.values():
        assert np.mean(shares) == pytest.approx(1 / 6, abs=0.05)


def test_the_test_images_have_no_part_in_it(images: SceneImages, features: Features) -> None:
    other = replace(features, test=-features.test)
    for name in (END_TO_END, "svm"):
        once, again = (
            compared(images, one, network=True).children[name].metrics()
            for one in (features, other)
        )
        assert once["temperature"] == again["temperature"]
        assert once["test/accuracy"] != again["test/accuracy"]


def test_folds_with_features_of_their_own_give_the_temperature(
    images: SceneImages, features: Features
) -> None:
    tracker = MemoryTracker()
    comparison = MethodRuns(LayerSvmConfig(folds=3), images, tracker, False)

    def noisy(train: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(train)
        return features.train + 2 * rng.standard_normal(features.train.shape)

    for name, own in (("own", noisy), ("shared", None)):
        classifier = comparison.cross_validate("linear", features, own)
        comparison.add_svm(name, classifier, features, 0.0)
        if classifier.fold_scores is not None:
            labels = images.dataset.train.labels
            expected = fit_temperature(classifier.fold_scores.astype(np.float64), labels)
    found = {name: child.metrics()["temperature"] for name, child in tracker.children.items()}
    assert found["own"] == expected
    # What tells the classes apart less well is trusted less.
    assert found["own"] > found["shared"]


def test_fewer_folds_are_said_once_with_the_class(
    images: SceneImages, features: Features, caplog: pytest.LogCaptureFixture
) -> None:
    comparison = MethodRuns(LayerSvmConfig(folds=20), images, MemoryTracker(), False)
    for kernel in ("linear", "rbf"):
        classifier = comparison.cross_validate(kernel, features)
        comparison.add_svm(kernel, classifier, features, 0.0)
    reported = [message for message in caplog.messages if "folds instead" in message]
    assert reported == [f"15 folds instead of 20: class {CLASSES[0]} has no more training images"]


def test_no_fold_is_spoken_of_where_held_out_images_decide(
    images: SceneImages, features: Features, caplog: pytest.LogCaptureFixture
) -> None:
    comparison = MethodRuns(LayerSvmConfig(folds=20), images, MemoryTracker(), True)
    classifier = comparison.cross_validate("linear", features, on_held_out=True)
    comparison.add_svm("svm", classifier, features, 0.0)
    assert "folds" not in caplog.text


def test_a_run_says_what_was_fitted_inside_the_folds(
    images: SceneImages, features: Features
) -> None:
    tracker = MemoryTracker()
    comparison = MethodRuns(LayerSvmConfig(folds=3), images, tracker, True)
    folded = comparison.cross_validate("linear", features, lambda train: features.train)
    comparison.add_svm("folded", folded, features, 0.0)
    comparison.add_svm("plain", comparison.cross_validate("linear", features), features, 0.0)
    shown = {
        name: {one.name: one.value for one in child.records if isinstance(one, Param)}
        for name, child in tracker.children.items()
    }
    assert shown["folded"]["cv_scope"] == "descriptor encoder inside the folds"
    assert shown["plain"]["cv_scope"] == "classifier only"
    assert {one["kernel_map"] for one in shown.values()} == {"none"}
