"""Evaluation of a finished method: on held-out images, then once on the test images."""

from __future__ import annotations

import logging

import numpy as np
from PIL import Image

from scenetrack.classifiers.selection import class_parts
from scenetrack.data.dataset import SceneDataset
from scenetrack.data.decoding import decode_image, resized
from scenetrack.data.duplicates import in_train
from scenetrack.errors import DataError
from scenetrack.evaluation import Evaluation, evaluate
from scenetrack.evaluation.temperature_scaling import fit_temperature, log_loss, softmax
from scenetrack.figures import draw_mistakes
from scenetrack.records import Figure, Metric, Record

logger = logging.getLogger(__name__)

_MOST_MISTAKES, _MISTAKE_SIDE = 16, 160


def validation_figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, log loss and temperature from scores of held-out training images.

    Args:
        scores: float [H, C], H > 0.
        labels: int64 [H].

    Returns:
        ``val/accuracy``, ``temperature``, and ``val/log_loss``: of each fifth of the images at the
        temperature of the others.

    Raises:
        ScenetrackError: a score is not a number, which the largest of all would be.
    """
    temperature = fit_temperature(scores, labels)
    return {
        "val/accuracy": float(np.mean(scores.argmax(axis=1) == labels)),
        "val/log_loss": _cross_fitted_log_loss(scores, labels),
        "temperature": temperature,
    }


def _cross_fitted_log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the log loss of images at temperatures that were learnt from other images."""
    parts = class_parts(labels)
    probabilities = np.empty(scores.shape)
    for part in np.unique(parts):
        here = parts == part
        # One image alone has no others.
        temperature = 1.0 if here.all() else fit_temperature(scores[~here], labels[~here])
        probabilities[here] = softmax(scores[here], temperature)
    return log_loss(probabilities, labels)


def evaluate_on_test(dataset: SceneDataset, scores: np.ndarray, temperature: float) -> Evaluation:
    """Evaluate scores float [N, C] of the test images, with probabilities at ``temperature``.

    Raises:
        ScenetrackError: a score is not a number.
    """
    # Scores that are no numbers are refused below, in one line and without a warning before it.
    with np.errstate(invalid="ignore"):
        probabilities = softmax(scores, temperature)
    return evaluate(dataset.test.labels, scores, dataset.class_names, probabilities)


def evaluation_records(evaluation: Evaluation, dataset: SceneDataset, name: str) -> list[Record]:
    """Return everything that the run of the method ``name`` logs of its test."""
    records = evaluation.records(file_names(dataset), title=name)
    return [
        *records,
        *_without_copies(evaluation, dataset, name),
        *_gallery(evaluation, dataset, name),
    ]


def _without_copies(evaluation: Evaluation, dataset: SceneDataset, name: str) -> list[Record]:
    """Return the accuracy on the test images that are not in train, where some are."""
    copies = in_train(dataset)
    if not copies.any() or copies.all():
        return []
    right = (evaluation.predictions == evaluation.labels)[~copies]
    logger.info(
        "%s: %.1f%% right without the %d test images that are also in train",
        name,
        100 * right.mean(),
        copies.sum(),
    )
    return [Metric("test/accuracy_without_copies", float(right.mean()))]


def file_names(dataset: SceneDataset) -> list[str]:
    """Return CLASS/FILE of each test image, which is the same wherever the data set lies."""
    return list(dataset.test.names)


def _gallery(evaluation: Evaluation, dataset: SceneDataset, name: str) -> list[Figure]:
    """Draw the most confident mistakes; return no figure if there are none."""
    wrong = evaluation.mistakes(_MOST_MISTAKES)
    if evaluation.probabilities is None or not len(wrong):
        return []
    predicted = evaluation.predictions[wrong]
    names = dataset.class_names
    captions = [
        (names[evaluation.labels[image]], names[label], evaluation.probabilities[image, label])
        for image, label in zip(wrong, predicted, strict=True)
    ]
    try:
        decoded = [Image.fromarray(decode_image(dataset.test.paths[image])) for image in wrong]
    except DataError as error:
        # The images were there when the method was tested: its figures stand without a picture.
        logger.warning("no picture of the mistakes: %s", error)
        return []
    images = np.stack([resized(image, _MISTAKE_SIDE) for image in decoded])
    return [draw_mistakes(images, captions, name)]
