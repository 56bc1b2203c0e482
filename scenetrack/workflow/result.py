"""The result of a stage, and the choice of a method without the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenetrack.evaluation import Evaluation

# The one method of train_mlp.
MLP = "MLP"


@dataclass(frozen=True)
class StageResult:
    """The result of one stage.

    Attributes:
        run_id: the parent run.
        summary: what is printed at the end, several lines of text.
        evaluations: the test-set evaluation of each finished method by its name.
        metrics: the parent run's own figures.
        methods: figures of each finished method by its name, such as ``val/accuracy``.
    """

    run_id: str
    summary: str
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def chosen_method(methods: Mapping[str, Mapping[str, float]]) -> str:
    """Return the method with the best validation accuracy, then cross-validation accuracy.

    The test images show how good it is, they do not choose it.
    """
    return max(
        methods,
        key=lambda name: tuple(
            methods[name].get(key, 0.0) for key in ("val/accuracy", "cv/accuracy")
        ),
    )


def untested(
    run_id: str, methods: Mapping[str, Mapping[str, float]], chosen_by: Mapping[str, float]
) -> StageResult:
    """Return the result of a stage that did not use the test images.

    Args:
        run_id: the parent run.
        methods: figures of each method.
        chosen_by: accuracies inside train of the one chosen.
    """
    best = chosen_method(methods)
    lines = [f"{name}: {choice_text(figures)}" for name, figures in methods.items()]
    note = f"best without the test images, which were left alone: {best}"
    return StageResult(run_id, "\n".join([*lines, note]), metrics=chosen_by, methods=methods)


def choice_text(figures: Mapping[str, float]) -> str:
    """Return the validation or cross-validation accuracy in words."""
    if "val/accuracy" in figures:
        return f"{figures['val/accuracy']:.1%} right in held-out training images"
    if "cv/accuracy" in figures:
        return f"{figures['cv/accuracy']:.1%} right in cross-validation inside train"
    return "no training image that nothing was learnt from: keep some with --validation"
