"""Finished runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import EntryPointConfig, param
from scenetrack.config.entry_point import EntryPoint


@dataclass(frozen=True)
class CompareConfig(EntryPointConfig):
    """Finished runs side by side on the same test images, from what they kept."""

    stage: ClassVar[str] = "compare"

    runs: tuple[str, ...] = param(
        (), "Run ids; that of a stage, of several seeds or of main means every method below it."
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
