"""Settings of ``patch_bow`` (task 5): patch descriptors of a network, encoded for SVMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scenetrack.config.base import DENSE_FORMS, param
from scenetrack.config.dimensions import choice, hidden_widths, real, whole
from scenetrack.config.encoding import ENCODING_SPACE, EncodingConfig
from scenetrack.config.entry_point import EntryPoint, Methods
from scenetrack.config.training import ACTIVATIONS, CutNetworkConfig, check_weights
from scenetrack.errors import ConfigError

PATCH_NETWORK = "patch_mlp"  # the network that takes patches of an image
AGGREGATIONS = ("mean", "max", "vote")
SAMPLINGS = ("random", "grid")


@dataclass(frozen=True)
class PatchBowConfig(CutNetworkConfig, EncodingConfig):
    """Task 5: patch MLP, its patch descriptors encoded, and SVMs."""

    stage: ClassVar[str] = "patch_bow"
    network: ClassVar[str] = PATCH_NETWORK
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "course": {
            "image_size": 256,
            "patch_size": 64,
            "stride": 64,
            "sampling": "grid",
            "contrast_offset": 0.0,
            "whitening": 0,
            "mean_colour": False,
            "hidden": (2048,),
            "activation": "relu",
            "dropout": 0.0,
            "batch_norm": False,
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "schedule": "constant",
            "weight_decay": 0.0,
            "epochs": 20,
            "batch_size": 128,
        },
        "best": {
            "image_size": 96,
            "scales": (1.0, 0.67, 0.5, 0.34),
            "stride": 3,
            "patches_per_image": 80,
            "dropout": 0.25,
            "epochs": 25,
            "encoder": "fisher_vector",
            "codebook_size": 256,
            "pca": 96,
            "position": 1.0,
        },
        # The best of 50 trials of the default space on the real split, rounded.
        "tuned": {
            "image_size": 96,
            "scales": (1.0, 0.67, 0.5),
            "whitening": 240,
            "contrast_offset": 21.5,
            "hidden": (903,),
            "dropout": 0.133,
            "learning_rate": 0.00119,
            "weight_decay": 0.00147,
            "epochs": 10,
            "encoder": "fisher_vector",
            "codebook_size": 72,
            "pca": 80,
            "position": 1.1,
        },
    }

    image_size: int = param(128, "Side in pixels that images are resized to.", low=8, high=2048)
    scales: tuple[float, ...] = param(
        (1.0,),
        "Image sizes whose patches are described together, as fractions of image_size.",
        low=0.01,
        high=1,
    )
    patch_size: int = param(16, "Side of a patch in pixels.", low=2, high=1024)
    stride: int = param(4, "Pixels between neighbouring patches of the grid.", low=1, high=1024)
    patches_per_image: int = param(
        60, "Random patches drawn from each image in an epoch.", low=1, high=100000
    )
    sampling: str = param(
        "random",
        "Training patches: new random positions each epoch, or the grid.",
        choices=SAMPLINGS,
    )
    flip: bool = param(True, "Mirror training patches at random.")
    contrast_offset: float = param(
        10.0,
        "Contrast normalisation: patch minus mean over (standard deviation + this), in grey "
        "levels; 0: none.",
        low=0,
        high=1000,
    )
    whitening: int = param(
        160, "Dimensions kept by PCA whitening of the patches; 0: no whitening.", low=0
    )
    mean_colour: bool = param(True, "Append the mean colour to the normalised patch.")
    activation: str = param("relu", "Activation of the hidden layers.", choices=ACTIVATIONS)
    dropout: float = param(0.4, "Dropout after each hidden layer.", low=0, high=0.95)
    learning_rate: float = param(2e-3, "Initial learning rate.", low=1e-8, high=10)
    weight_decay: float = param(0.01, "Decoupled weight decay (adamw only).", low=0, high=10)
    label_smoothing: float = param(0.0, "Label smoothing.", low=0, high=0.9)
    epochs: int = param(20, "Training epochs.", low=1, high=100000)
    batch_size: int = param(256, "Training batch size, in patches.", low=1, high=65536)
    aggregation: str = param("mean", "Aggregation of patch logits.", choices=AGGREGATIONS)
    form: str = param(
        "auto",
        "Computation of the patch descriptors; auto: the fastest on this machine.",
        choices=("auto", *DENSE_FORMS),
    )

    def validate(self) -> None:
        super().validate()
        if len(set(self.scaled_sizes)) < max(1, len(self.scales)):
            raise ConfigError(
                "scales must give images of different sizes, at least one. Received: "
                f"{','.join(map(str, self.scales)) or 'none'}"
            )
        if self.patch_size > min(self.scaled_sizes):
            raise ConfigError(
                f"a patch must fit into the image: patch_size {self.patch_size} is larger than "
                f"image_size {min(self.scaled_sizes)}"
                f"{', the smallest of scales' * (len(self.scales) > 1)}"
            )
        pixels = 3 * self.patch_size**2
        if self.whitening > pixels:
            raise ConfigError(
                f"whitening keeps at most the {pixels} values of a patch of "
                f"{self.patch_size} px. Received: whitening={self.whitening}"
            )
        check_weights((self.whitening or pixels) + 3 * self.mean_colour, self.hidden)

    @property
    def read_by_training(self) -> frozenset[str]:
        unread = {"stride"} if self.sampling != "grid" else set()
        return super().read_by_training - unread

    @property
    def scaled_sizes(self) -> tuple[int, ...]:
        """Side in pixels of the image at each scale."""
        return tuple(round(scale * self.image_size) for scale in self.scales)


PATCH_BOW = EntryPoint(
    config=PatchBowConfig,
    task="5",
    example="scenetrack patch_bow --data mit8 --patch-size 16 --codebook-size 2048 --seed 7",
    methods=Methods.SEVERAL,
    space=(
        *hidden_widths(2, 256, 1024),
        real("dropout", 0.0, 0.6),
        real("learning_rate", 3e-4, 5e-3, log=True),
        real("weight_decay", 1e-3, 0.1, log=True),
        choice("image_size", "64", "96", "128"),
        choice("scales", "1.0", "1.0,0.67", "1.0,0.67,0.5"),
        whole("whitening", 80, 240, step=40),
        real("contrast_offset", 2.0, 40.0, log=True),
        *ENCODING_SPACE,
    ),
)
