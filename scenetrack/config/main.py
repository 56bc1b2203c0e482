"""Settings of ``main``: the tasks from the MLP to the comparison, in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DataConfig
from scenetrack.config.entry_point import EntryPoint, Methods


@dataclass(frozen=True)
class MainConfig(DataConfig):
    """Run all tasks from the MLP to the comparison, each stage with its defaults."""

    stage: ClassVar[str] = "main"


MAIN = EntryPoint(
    config=MainConfig,
    task="all",
    example="scenetrack main --data mit8",
    methods=Methods.OF_STAGES,
)
