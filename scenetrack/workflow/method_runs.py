"""Finished methods as child runs: validation, test, calibration, and their comparison."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from scenetrack.classifiers import (
    HELD_OUT_IMAGES,
    FittedClassifier,
    FoldFeatures,
    fit_by_cross_validation,
    out_of_fold_scores,
    refit_apart,
)
from scenetrack.classifiers.folds import usable_folds
from scenetrack.classifiers.selection import Selection
from scenetrack.evaluation import Evaluation, comparison_records, comparison_text
from scenetrack.evaluation.temperature_scaling import fit_temperature
from scenetrack.records import (
    Artifact,
    MethodDescription,
    Metric,
    Param,
    Record,
    Table,
    Tag,
    Tracker,
    metrics,
)
from scenetrack.workflow.dataset import SceneImages, dataset_inputs
from scenetrack.workflow.evaluation import evaluate_on_test, evaluation_records, validation_figures
from scenetrack.workflow.result import StageResult, choice_text, chosen_method, untested

logger = logging.getLogger(__name__)

END_TO_END = "end to end"
# Accuracies inside train: of held-out images, of folds, and of folds that a network has learnt.
VALIDATED, CROSS_VALIDATED, KNOWN_IMAGES = "val/accuracy", "cv/accuracy", "train/cv_accuracy"


@dataclass(frozen=True)
class Features:
    """One vector per image of both splits.

    Attributes:
        train: float32 [N, D].
        test: float32 [N, D]; None where the test images are left alone.
        preparation: what an SVM does to the vectors first, of ``feature_rows.PREPARATIONS``.
        descriptor: what the vectors are made from, for the child runs.
        encoder: title of the encoder that made them; ``none``: no encoder.
    """

    train: np.ndarray
    test: np.ndarray | None
    preparation: str
    descriptor: str
    encoder: str = "none"


class MethodSettings(Protocol):
    """Settings that the methods of a stage read."""

    @property
    def seed(self) -> int: ...

    @property
    def folds(self) -> int: ...

    def as_params(self) -> dict[str, str]: ...

    def given_temperature(self, method: str) -> float | None: ...


@dataclass
class MethodRuns:
    """Add the finished methods of a stage on the same test images, one child run each.

    Args:
        config: the stage's settings, which every child carries too.
        images: the data, with labels and held-out images.
        tracker: the parent run.
        network: whether a network's outputs are the descriptors, which knows the fitted images.

    Attributes:
        evaluations: of each method on the test images.
        figures: of each method.
    """

    config: MethodSettings
    images: SceneImages
    tracker: Tracker
    network: bool
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    _judged: dict[str, dict[str, Selection]] = field(
        default_factory=lambda: {VALIDATED: {}, CROSS_VALIDATED: {}}, repr=False
    )

    def add_end_to_end(
        self,
        train_scores: np.ndarray,
        test_scores: np.ndarray | None,
        descriptor: str,
        aggregation: str = "",
    ) -> None:
        """Add the network's own output as a method.

        Its temperature is learnt from the held-out images; where there are none, it is the given
        one, or 1.

        Args:
            train_scores: float [N, C].
            test_scores: float [N, C]; None where the test images are left alone.
            descriptor: what the network is, for the child run.
            aggregation: how patch logits became scores.
        """
        labels = self.images.dataset.train.labels
        right = train_scores.argmax(axis=1) == labels
        figures = {"train/accuracy": right[self.images.fitted].mean()}
        if self.validates:
            figures |= self._validation_figures(train_scores[self.images.held_out])
            self._judge_by_held_out(END_TO_END, right[self.images.held_out])
        figures.setdefault("temperature", self.config.given_temperature(END_TO_END) or 1.0)
        about = MethodDescription(END_TO_END, descriptor, aggregation=aggregation)
        with self.tracker.child(END_TO_END, about.tags) as child:
            child.log(*metrics(figures), *self._circumstances())
            self._finish_method(child, END_TO_END, test_scores, figures)

    def cross_validate(
        self,
        kernel: str,
        features: Features,
        fold_features: FoldFeatures | None = None,
        *,
        on_held_out: bool = False,
    ) -> FittedClassifier:
        """Fit an SVM on the training vectors, its settings chosen by cross-validation inside train.

        Args:
            kernel: one of ``config.KERNELS``.
            features: of both splits.
            fold_features: gives each fold features of its own, see ``fit_by_cross_validation``.
            on_held_out: whether settings are judged on the held-out images instead, where there
                are any that the network has not seen.
        """
        held_out = self.images.held_out if on_held_out and self.validates else None
        return fit_by_cross_validation(
            features.train,
            self.images.dataset.train.labels,
            kernel,
            preparation=features.preparation,
            folds=self.folds if held_out is None else self.config.folds,
            seed=self.config.seed,
            fold_features=fold_features,
            held_out=held_out,
        )

    def add_svm(
        self, name: str, classifier: FittedClassifier, features: Features, seconds: float
    ) -> None:
        """Add a fitted SVM, whose settings were chosen inside train, as the method ``name``.

        Its accuracies inside train are those of images that did not choose its settings:
        ``cv/accuracy`` by settings that other folds chose, ``val/accuracy`` by what was chosen and
        fitted without the held-out images. The temperature is learnt from the scores of the
        latter; where there are none, it is the given one, or learnt from out-of-fold scores, or 1
        where a network knows all images.
        """
        labels = self.images.dataset.train.labels
        figures = {
            "train/accuracy": np.mean(classifier.predict(features.train) == labels),
            "time/fit_s": seconds,
            **self._cross_validated(name, classifier),
        }
        if self.validates:
            fitted, held_out = self.images.fitted, self.images.held_out
            without = refit_apart(classifier, features.train, labels, fitted)
            scores = without.predict_scores(features.train[held_out])
            right = scores.argmax(axis=1) == labels[held_out]
            figures |= self._validation_figures(scores)
            if classifier.cv_scope == HELD_OUT_IMAGES:
                # They chose the setting: each part of them is judged by what the others choose.
                right = _selection(classifier).judged()
                figures[VALIDATED] = float(right.mean())
            self._judge_by_held_out(name, right)
        else:
            temperature = self.config.given_temperature(name)
            if temperature is None:
                temperature = 1.0
                if not self.images_are_known:
                    temperature = fit_temperature(self._fold_scores(classifier, features), labels)
            figures["temperature"] = temperature
        about = MethodDescription(name, features.descriptor, features.encoder, classifier.kernel)
        with self.tracker.child(name, about.tags) as child:
            child.log(
                *metrics(figures),
                *self._circumstances(),
                *(Param(key, f"{value:.6g}") for key, value in classifier.best_params.items()),
                *(Param(key, value) for key, value in classifier.provenance.items()),
                _settings_table(classifier),
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "classifier.npz"
                np.savez(path, allow_pickle=False, **classifier.to_arrays())
                child.log(Artifact(path))
            tested = None if features.test is None else classifier.predict_scores(features.test)
            self._finish_method(child, name, tested, figures)

    def _fold_scores(self, classifier: FittedClassifier, features: Features) -> np.ndarray:
        """Score the training images by machines that were not fitted on them: float64 [N, C]."""
        if classifier.fold_scores is not None:
            return classifier.fold_scores.astype(np.float64)
        labels = self.images.dataset.train.labels
        return out_of_fold_scores(
            classifier, features.train, labels, self.folds, seed=self.config.seed
        )

    @cached_property
    def folds(self) -> int:
        """Number of folds: fewer, with one warning, if a class has fewer images."""
        dataset = self.images.dataset
        return usable_folds(dataset.train.labels, dataset.class_names, self.config.folds)

    @property
    def validates(self) -> bool:
        """Whether there are held-out images, which the network has not learnt."""
        return self.network and len(self.images.held_out) > 0

    @property
    def images_are_known(self) -> bool:
        """Whether a network has learnt the labels of training images besides those held out."""
        return self.network and self.images.network_knows

    def _cross_validated(self, name: str, classifier: FittedClassifier) -> dict[str, float]:
        """Return accuracy and deviation over the folds, by settings that other folds chose."""
        if classifier.cv_scope == HELD_OUT_IMAGES:
            return {}
        selection = _selection(classifier)
        right = selection.judged()
        folds = [right[selection.parts == part].mean() for part in np.unique(selection.parts)]
        if not self.images_are_known:
            self._judged[CROSS_VALIDATED][name] = replace(selection, right=right[None])
        # Of images that a network has learnt every setting looks right, whatever their labels.
        title = KNOWN_IMAGES if self.images_are_known else CROSS_VALIDATED
        return {title: float(np.mean(folds)), f"{title}_std": float(np.std(folds, ddof=1))}

    def _judge_by_held_out(self, name: str, right: np.ndarray) -> None:
        held_out, labels = self.images.held_out, self.images.dataset.train.labels
        self._judged[VALIDATED][name] = Selection.of_held_out(
            right[None], held_out, labels[held_out]
        )

    def _chosen_by(self, best: str) -> dict[str, float]:
        """Return the accuracies inside train of the choice ``best``.

        The first is that of images which did not choose among the methods.
        """
        figures = {
            name: self.figures[best][name]
            for name in (VALIDATED, CROSS_VALIDATED)
            if name in self.figures[best]
        }
        first = next(iter(figures), "")
        if not first:
            return {}
        selection = Selection.joined(list(self._judged[first].values()))
        return {**figures, first: float(selection.judged().mean())}

    def _validation_figures(self, scores: np.ndarray) -> dict[str, float]:
        """Return validation figures from scores [H, C] of the held-out images."""
        labels = self.images.dataset.train.labels
        return validation_figures(scores, labels[self.images.held_out])

    def finish(self) -> StageResult:
        """Log the comparison with the first method, and the figures of the one to choose."""
        best = chosen_method(self.figures)
        chosen_by = self._chosen_by(best)
        self.tracker.log(Tag("best_method", best), *metrics(chosen_by))
        if not self.evaluations:
            return untested(self.tracker.run_id, self.figures, chosen_by)
        figures = {**self.evaluations[best].metrics("test"), **chosen_by}
        self.tracker.log(
            *metrics(figures),
            *(
                Metric(f"test/accuracy/{name}", evaluation.accuracy)
                for name, evaluation in self.evaluations.items()
            ),
            *comparison_records(self.evaluations),
        )
        choice = f"chosen without the test images: {best} ({choice_text(chosen_by)})"
        if not chosen_by:
            choice = f"none is chosen without the test images: {choice_text(chosen_by)}"
        table = comparison_text(self.evaluations)
        return StageResult(
            self.tracker.run_id, f"{table}\n{choice}", self.evaluations, figures, self.figures
        )

    def _circumstances(self) -> list[Record]:
        """Return params and data set, by which a child is compared with those of other runs."""
        params = [Param(name, value) for name, value in self.config.as_params().items()]
        return [*params, *dataset_inputs(self.images.dataset)]

    def _finish_method(
        self, child: Tracker, name: str, scores: np.ndarray | None, figures: Mapping[str, float]
    ) -> None:
        dataset = self.images.dataset
        self.figures[name] = dict(figures)
        if scores is None:
            return
        evaluation = evaluate_on_test(dataset, scores, figures["temperature"])
        child.log(*evaluation_records(evaluation, dataset, name))
        self.evaluations[name] = evaluation
        self.figures[name] = {**figures, **evaluation.metrics()}
        logger.info("%s: %.1f%% of the test images right", name, 100 * evaluation.accuracy)


def _selection(classifier: FittedClassifier) -> Selection:
    if classifier.selection is None:
        raise ValueError("a classifier fresh from cross-validation is required")
    return classifier.selection


def _settings_table(classifier: FittedClassifier) -> Table:
    """Tabulate every setting that cross-validation tried."""
    rows = [tuple(float(value) for value in row) for row in classifier.cv_table]
    return Table("cross_validation.json", ("C", "gamma", "accuracy", "std"), rows)
