"""The story from the MLP to the comparison: tasks 1, 4 and 5 as children of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scenetrack.config import DataConfig, LayerSvmConfig, MainConfig, PatchBowConfig, TrainMlpConfig
from scenetrack.evaluation import Evaluation, comparison_records, comparison_text
from scenetrack.records import Param, Tag, Tracker
from scenetrack.stages.layer_svm import layer_svm
from scenetrack.stages.patch_bow import patch_bow
from scenetrack.stages.train_mlp import train_mlp
from scenetrack.workflow.result import StageResult

STORY: tuple[tuple[type[DataConfig], Callable[[Any, Tracker], StageResult]], ...] = (
    (TrainMlpConfig, train_mlp),
    (LayerSvmConfig, layer_svm),
    (PatchBowConfig, patch_bow),
)


def main(config: MainConfig, tracker: Tracker) -> StageResult:
    """Run the tasks with their defaults, each in a child run, and compare all their methods.

    Raises:
        InputError: the data cannot be used.
    """
    evaluations: dict[str, Evaluation] = {}
    shared = {name: getattr(config, name) for name in ("data", "skip_bad", "seed", "experiment")}
    for kind, stage in STORY:
        settings = kind(**shared)
        with tracker.child(kind.stage, {"stage": kind.stage}) as child:
            child.log(*(Param(name, value) for name, value in settings.as_params().items()))
            result = stage(settings, child)
        print(f"{kind.stage}\n{result.summary}\n")
        evaluations |= {f"{kind.stage}: {name}": one for name, one in result.evaluations.items()}
    reference = next(iter(evaluations))
    tracker.log(Tag("status", "completed"), *comparison_records(evaluations, reference))
    return StageResult(tracker.run_id, comparison_text(evaluations, reference), evaluations)
