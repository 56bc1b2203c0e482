"""Image files classified by a finished method."""

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
        "", "Of the output; empty: by the suffix of the file, else csv.", choices=("", *FORMATS)
    )
    output: str = param("", "File to write; empty: standard output.", short="-o")
    top: int = param(3, "How many of the most probable classes to tell.", low=1, high=1000)
    explain: str = param("", "Folder for a map of each image: which patches spoke for the class.")
    memory: int = param(
        512, "Megabytes that the images in work and their tensors may take.", low=16, high=1048576
    )


PREDICT = EntryPoint(
    config=PredictConfig,
    example="scenetrack predict scene.onnx photos -o labels.csv --explain maps",
    positional=("model", "images"),
    needs_keras=False,
)
