"""The settings of a study, and the targets that it may tune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DataConfig, param
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.stages import STAGES
from scenetrack.errors import ConfigError

TARGETS = {stage.name: stage for stage in STAGES if stage.space}
SAMPLERS = ("tpe", "random", "cmaes", "grid")
PRUNERS = ("median", "hyperband", "none")
OBJECTIVES = ("accuracy", "parameters", "latency")
# Of the training images, where the target trains a network: a tenth tells settings apart badly.
HELD_OUT = "0.25"


@dataclass(frozen=True)
class TuneConfig(DataConfig):
    """Search the settings of another entry point: every trial a child run of the study.

    Flags of the target fix its settings, such as --epochs 20.
    """

    stage: ClassVar[str] = "tune"

    target: str = param("", "Entry point to tune.", choices=("", *TARGETS))
    trials: int = param(20, "Finished trials of the study in all.", low=1, high=100000)
    study: str = param("", "Name of the study; empty: the target and the data.")
    storage: str = param(
        "journal:studies.journal",
        "Where studies are kept: journal:FILE, or the URL of a database.",
    )
    workers: int = param(1, "Processes on this machine that share the trials.", low=1, high=256)
    sampler: str = param("tpe", "How settings are drawn.", choices=SAMPLERS)
    pruner: str = param("median", "What stops a bad training early.", choices=PRUNERS)
    objectives: tuple[str, ...] = param(
        ("accuracy",),
        "What is to be best: accuracy inside train; fewest parameters; least latency of an image.",
        choices=OBJECTIVES,
    )
    space: str = param(
        "",
        "Ranges instead of the target's own, or a TOML file of them: "
        "'dropout=0:0.3; encoder=vlad|fisher_vector; learning_rate=1e-4:1e-2:log'.",
    )
    fixed: str = param("", "Settings of the target that stay: 'epochs=20; image_size=48'.")
    refit: bool = param(
        True, "At the end fit the best settings on all of train, and test them once."
    )
    register: str = param(
        "", "Name of a registered model: the refitted method gets its alias champion."
    )
    show_space: bool = param(False, "Show what would be searched, and stop.")

    @property
    def opens_run(self) -> bool:
        return False  # a study is one run, whatever number of processes work on it

    def validate(self) -> None:
        super().validate()
        if not self.objectives or self.objectives[0] != "accuracy":
            raise ConfigError(
                f"objectives begins with accuracy. Received: {','.join(self.objectives) or 'none'}"
            )
        if self.register and not self.refit:
            raise ConfigError("register needs the refitted method, but refit is false")


TUNE = EntryPoint(
    config=TuneConfig,
    task="tune",
    example="scenetrack tune --target patch_bow --data mit8 --trials 50 --epochs 10",
)
