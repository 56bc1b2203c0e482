"""Tasks 1, 4 and 5 as children of one run, and the comparison of all their methods."""

from __future__ import annotations

from scenetrack.config import ENTRY_POINTS, MainConfig
from scenetrack.config.base import DATA_SETTINGS
from scenetrack.evaluation import Evaluation, comparison_records, comparison_text
from scenetrack.records import Param, Tag, Tracker
from scenetrack.system.terminal import say
from scenetrack.workflow.result import StageResult
from scenetrack.workflow.runner import stage_function

MAIN_STAGES = ("train_mlp", "layer_svm", "patch_bow")


def main(config: MainConfig, tracker: Tracker) -> StageResult:
    """Run the tasks with their defaults, each in a child run, and compare all their methods.

    Raises:
        InputError: the data cannot be used.
    """
    evaluations: dict[str, Evaluation] = {}
    shared = {name: getattr(config, name) for name in DATA_SETTINGS}
    for stage in MAIN_STAGES:
        settings = ENTRY_POINTS[stage].config(**shared)
        with tracker.child(stage, {"stage": stage}) as child:
            child.log(*(Param(name, value) for name, value in settings.as_params().items()))
            result = stage_function(stage)(settings, child)
        say(f"{stage}\n{result.summary}\n")
        evaluations |= {f"{stage}: {name}": found for name, found in result.evaluations.items()}
    reference = next(iter(evaluations))
    tracker.log(Tag("status", "completed"), *comparison_records(evaluations, reference))
    return StageResult(tracker.run_id, comparison_text(evaluations, reference), evaluations)
