"""Settings of ``bundle``: a finished method as one ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DeviceConfig, param
from scenetrack.config.entry_point import EntryPoint


@dataclass(frozen=True)
class BundleConfig(DeviceConfig):
    """Write a finished run as one verified ONNX file: images in, class probabilities out."""

    stage: ClassVar[str] = "bundle"

    run: str = param("", "Run id or .keras file to bundle.")
    method: str = param(
        "", "Name of the child run to bundle; empty: the one that validation chose."
    )
    data: str = param("", "Data set to verify on; empty: the run's own.")
    output: str = param("scene.onnx", "File to write.", short="-o")


BUNDLE = EntryPoint(
    config=BundleConfig,
    example="scenetrack bundle RUN -o scene.onnx",
    positional=("run",),
    needs_keras=False,
)
