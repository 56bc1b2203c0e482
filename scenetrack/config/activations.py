"""Settings of ``activations`` (task 2): the output of one layer for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import StageConfig, param
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.patch_bow import PatchBowConfig

LIST_LAYERS = "list"


@dataclass(frozen=True)
class ActivationsConfig(StageConfig):
    """Task 2: one layer's output for one image."""

    stage: ClassVar[str] = "activations"

    image: str = param("", "Image file.")
    model: str = param(
        "", "Run id or .keras file; empty: the newest finished training of the experiment."
    )
    layer: str = param("list", "Layer name, or list to print the layers and their shapes.")
    image_size: int = param(
        PatchBowConfig.image_size,
        "Side in pixels that the image is resized to for a patch network.",
        low=8,
        high=2048,
    )
    output: str = param(".", "Folder to write the .npz file and the picture to.")

    @property
    def opens_run(self) -> bool:
        return self.layer != LIST_LAYERS


ACTIVATIONS = EntryPoint(
    config=ActivationsConfig,
    task="2",
    example="scenetrack activations coast.jpg --layer hidden_1 --output figures",
    positional=("image",),
)
