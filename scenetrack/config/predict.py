"""Settings of ``predict``: image files classified by a finished method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DeviceConfig, param
from scenetrack.config.entry_point import EntryPoint

FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class PredictConfig(DeviceConfig):
    """Classify image files with a bundle or a run."""

    stage: ClassVar[str] = "predict"

    model: str = param("", "Bundle (.onnx), run id or .keras file.")
    images: tuple[str, ...] = param((), "Image files, folders or globs.")
    format: str = param(
        "", "Output format; empty: by the file suffix, else csv.", choices=("", *FORMATS)
    )
    output: str = param("", "File to write; empty: standard output.", short="-o")
    top: int = param(3, "Number of most probable classes to report.", low=1, high=1000)
    explain: str = param("", "Folder for maps of the patches that support the class.")
    memory: int = param(
        512, "Memory in megabytes for images in process and their tensors.", low=16, high=1048576
    )


PREDICT = EntryPoint(
    config=PredictConfig,
    example="scenetrack predict scene.onnx photos -o labels.csv --explain maps",
    positional=("model", "images"),
    needs_keras=False,
)
