"""Settings of ``export``: a network cut at a layer, as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DENSE_FORMS, DeviceConfig, param
from scenetrack.config.entry_point import EntryPoint
from scenetrack.errors import ConfigError

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class ExportConfig(DeviceConfig):
    """Write a network cut at a layer as one verified ONNX file."""

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
        "Computation of the dense form; auto: the fastest on this machine.",
        choices=("auto", *DENSE_FORMS),
    )
    precision: str = param("fp32", "Arithmetic of the layers.", choices=PRECISIONS)
    data: str = param(
        "", "Data set for the verification and the test of fp16 and int8; empty: the run's own."
    )
    output: str = param("descriptors.onnx", "File to write.", short="-o")

    def validate(self) -> None:
        super().validate()
        if not self.dense and (self.stride or self.form != "auto"):
            raise ConfigError("stride and form belong to the dense form: add --dense")


EXPORT = EntryPoint(
    config=ExportConfig,
    example="scenetrack export RUN --layer hidden_2 --dense --precision int8 -o layer.onnx",
    positional=("run",),
)
