"""Settings of ``tune``: an Optuna study of the settings of another entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DataConfig, param
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.names import LONGEST_REGISTERED, LONGEST_STUDY, check_name
from scenetrack.config.stages import STAGES
from scenetrack.errors import ConfigError

TARGETS = {stage.name: stage for stage in STAGES if stage.space}
SAMPLERS = ("tpe", "random", "cmaes", "grid")
PRUNERS = ("median", "hyperband", "none")
OBJECTIVES = ("accuracy", "parameters", "latency")
# Fraction of the training images, if the target trains a network; a tenth ranks settings badly.
HELD_OUT = "0.25"


@dataclass(frozen=True)
class TuneConfig(DataConfig):
    """Search the settings of another entry point: every trial a child run of the study.

    Flags of the target fix its settings, such as --epochs 20.
    """

    stage: ClassVar[str] = "tune"

    target: str = param("", "Entry point to tune.", choices=("", *TARGETS))
    trials: int = param(20, "Total number of finished trials of the study.", low=1, high=100000)
    study: str = param("", "Name of the study; empty: the target and the data.")
    storage: str = param(
        "journal:studies.journal",
        "Storage of studies: journal:FILE, or the URL of a database.",
    )
    workers: int = param(1, "Processes on this machine that share the trials.", low=1, high=256)
    sampler: str = param("tpe", "Sampler of the settings.", choices=SAMPLERS)
    pruner: str = param("median", "Pruner, which stops unpromising trials early.", choices=PRUNERS)
    objectives: tuple[str, ...] = param(
        ("accuracy",),
        "Objectives: validation accuracy; fewest parameters; least latency of an image.",
        choices=OBJECTIVES,
    )
    space: str = param(
        "",
        "Ranges that replace the target's own, or a TOML file of them: "
        "'dropout=0:0.3; encoder=vlad|fisher_vector; learning_rate=1e-4:1e-2:log'.",
    )
    fixed: str = param("", "Fixed settings of the target: 'epochs=20; image_size=48'.")
    refit: bool = param(
        True, "At the end refit the best settings on all training images and test once."
    )
    register: str = param(
        "", "Name of a registered model; the refitted method gets the alias champion."
    )
    show_space: bool = param(False, "Print the search space and exit.")

    @property
    def opens_run(self) -> bool:
        return False  # a study is one run, whatever number of processes work on it

    def validate(self) -> None:
        super().validate()
        if not self.objectives or self.objectives[0] != "accuracy":
            raise ConfigError(
                f"objectives begins with accuracy. Received: {','.join(self.objectives) or 'none'}"
            )
        if self.study:
            check_name("study", self.study, LONGEST_STUDY)
        if self.register:
            check_name("register", self.register, LONGEST_REGISTERED, forbidden="/:")
        if self.register and not self.refit:
            raise ConfigError("register needs the refitted method, but refit is false")


TUNE = EntryPoint(
    config=TuneConfig,
    task="tune",
    example="scenetrack tune --target patch_bow --data mit8 --trials 50 --epochs 10",
)
