"""Settings of ``handcrafted``: dense SIFT, encoded and classified as learnt descriptors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scenetrack.config.base import COLOURS, DeviceConfig, param
from scenetrack.config.dimensions import choice, real, whole
from scenetrack.config.encoding import ENCODING_SPACE, EncodingConfig
from scenetrack.config.entry_point import EntryPoint, Methods
from scenetrack.config.training import EvaluatedConfig
from scenetrack.errors import ConfigError


@dataclass(frozen=True)
class HandcraftedConfig(DeviceConfig, EncodingConfig, EvaluatedConfig):
    """Classify dense SIFT descriptors with the encoders and SVMs of learnt descriptors."""

    stage: ClassVar[str] = "handcrafted"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "best": {
            "bin_sizes": (4, 6, 8, 10, 14, 20),
            "colour": "opponent",
            "encoder": "fisher_vector",
            "codebook_size": 256,
            "pca": 96,
            "position": 1.0,
            "refit_encoder": True,
        }
    }

    preset: str = param("", "Named settings that replace the defaults: best.")
    image_size: int = param(256, "Side in pixels that images are resized to.", low=8, high=2048)
    step: int = param(8, "Pixels between neighbouring points of the grid.", low=1, high=1024)
    bin_sizes: tuple[int, ...] = param(
        (4, 6, 8, 10),
        "Sides in pixels of a spatial bin, one for each scale; a descriptor spans 4 x 4 bins.",
        low=1,
        high=512,
    )
    colour: str = param(
        "grey", "Gradients of the grey image, or of three opponent colours.", choices=COLOURS
    )
    smoothing: float = param(
        1.5, "Standard deviation in pixels of the blur before gradients; 0: none.", low=0, high=32
    )

    def validate(self) -> None:
        super().validate()
        if not self.bin_sizes or len(set(self.bin_sizes)) < len(self.bin_sizes):
            raise ConfigError(
                "bin_sizes must give at least one size, each once. Received: "
                f"{','.join(map(str, self.bin_sizes)) or 'none'}"
            )
        if 4 * max(self.bin_sizes) > self.image_size:
            raise ConfigError(
                f"a descriptor of 4 bins must fit into the image: {max(self.bin_sizes)} px each, "
                f"but image_size is {self.image_size}; choose smaller bin_sizes"
            )


HANDCRAFTED = EntryPoint(
    config=HandcraftedConfig,
    task="handcrafted",
    example="scenetrack handcrafted --data mit8 --encoder fisher_vector --codebook-size 128",
    needs_keras=False,
    methods=Methods.SEVERAL,
    space=(
        choice("image_size", "192", "256"),
        whole("step", 6, 12, step=2),
        choice("bin_sizes", "4,6,8,10", "4,6,8,10,14", "4,6,8,10,14,20", "6,10,16"),
        choice("colour", "grey", "opponent"),
        real("smoothing", 0.0, 2.5),
        *ENCODING_SPACE,
    ),
)
