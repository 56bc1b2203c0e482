"""Task 1: an MLP on whole images made small, trained, validated and tested once."""

from __future__ import annotations

from scenetrack.config import TrainMlpConfig
from scenetrack.networks.registry import build_network
from scenetrack.networks.training import predict_logits
from scenetrack.records import MethodDescription, Tag, Tracker, metrics
from scenetrack.workflow.dataset import open_images
from scenetrack.workflow.evaluation import evaluate_on_test, evaluation_records, validation_figures
from scenetrack.workflow.network_training import train_network
from scenetrack.workflow.result import MLP, StageResult, untested
from scenetrack.workflow.whole_images import training_images


def train_mlp(config: TrainMlpConfig, tracker: Tracker) -> StageResult:
    """Run the stage: one run, which is the method itself.

    Raises:
        InputError: the data, or the run to resume, cannot be used.
    """
    about = MethodDescription(MLP, descriptor="none")
    tracker.log(*(Tag(name, value) for name, value in about.tags.items()))
    images = open_images(config, tracker, config.image_size, config.validation)
    dataset, held_out = images.dataset, images.held_out
    network = build_network(config, len(dataset.class_names))
    train_network(network, training_images(images, config), config, tracker)

    figures = {"temperature": config.given_temperature(MLP) or 1.0}
    if len(held_out):
        scores = predict_logits(network, images.train[held_out])
        figures = validation_figures(scores, dataset.train.labels[held_out])
    # The curve of the accuracy ends with the kept model's already.
    tracker.log(
        *metrics({name: value for name, value in figures.items() if name != "val/accuracy"})
    )
    if images.test is None:
        chosen_by = {name: v for name, v in figures.items() if name == "val/accuracy"}
        return untested(tracker.run_id, {MLP: figures}, chosen_by)

    scores = predict_logits(network, images.test)
    evaluation = evaluate_on_test(dataset, scores, figures["temperature"])
    tracker.log(*evaluation_records(evaluation, dataset, MLP))
    figures = {**figures, **evaluation.metrics()}
    return StageResult(
        tracker.run_id, evaluation.summary(MLP), {MLP: evaluation}, figures, {MLP: figures}
    )
