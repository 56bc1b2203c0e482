"""Settings of ``compare``: finished runs on the same test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import EntryPointConfig, param
from scenetrack.config.entry_point import EntryPoint


@dataclass(frozen=True)
class CompareConfig(EntryPointConfig):
    """Compare finished runs on the same test images, from the predictions that they logged."""

    stage: ClassVar[str] = "compare"

    runs: tuple[str, ...] = param(
        (), "Run ids; the id of a stage, of repeats or of main stands for every method below it."
    )
    output: str = param(
        "", "Folder for comparison.csv, pairs.csv and comparison.png; empty: none.", short="-o"
    )


COMPARE = EntryPoint(
    config=CompareConfig,
    example="scenetrack compare RUN RUN -o comparison",
    positional=("runs",),
    needs_keras=False,
)
