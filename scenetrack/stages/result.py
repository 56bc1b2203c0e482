"""What a stage gives back to its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenetrack.evaluation import Evaluation


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage.

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
