"""The settings of the commands that compare finished runs, make files of them and use these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DENSE_FORMS, DeviceConfig, EntryPointConfig, param
from scenetrack.errors import ConfigError

PRECISIONS = ("fp32", "fp16", "int8")
FORMATS = ("csv", "jsonl", "parquet")


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


@dataclass(frozen=True)
class ExportConfig(DeviceConfig):
    """A network cut at a layer, as one verified ONNX file."""

    stage: ClassVar[str] = "export"

    run: str = param("", "Run id or .keras file to take the network from.")
    layer: str = param("", "Layer to cut at, or list to print them; empty: the last hidden one.")
    dense: bool = param(
        False, "Dense form: images of any size in, descriptors on a grid of patches out."
    )
    stride: int = param(
        0, "Pixels between patches of the dense form; 0: as in the run.", low=0, high=1024
    )
    form: str = param(
        "auto",
        "How the dense form computes the same values; auto: what is fastest here.",
        choices=("auto", *DENSE_FORMS),
    )
    precision: str = param("fp32", "Arithmetic of the layers.", choices=PRECISIONS)
    data: str = param(
        "", "Data set to verify on and to test fp16 and int8 with; empty: the run's own."
    )
    output: str = param("descriptors.onnx", "File to write.", short="-o")

    def validate(self) -> None:
        super().validate()
        if not self.dense and (self.stride or self.form != "auto"):
            raise ConfigError("stride and form belong to the dense form: add --dense")


@dataclass(frozen=True)
class BundleConfig(DeviceConfig):
    """A finished run as one verified ONNX file: images in, class probabilities out."""

    stage: ClassVar[str] = "bundle"

    run: str = param("", "Run id, or .keras file, to bundle.")
    method: str = param(
        "", "Name of the child run to bundle; empty: the one that validation chose."
    )
    data: str = param("", "Data set to verify on; empty: the run's own.")
    output: str = param("scene.onnx", "File to write.", short="-o")


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
