"""Settings of ``train_mlp`` (task 1): an MLP on whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scenetrack.config.base import param
from scenetrack.config.dimensions import Dimension, choice, hidden_widths, real
from scenetrack.config.entry_point import EntryPoint, Methods
from scenetrack.config.training import TrainingConfig, check_weights

AUGMENTATIONS = ("flip", "shift", "zoom", "brightness")


@dataclass(frozen=True)
class TrainMlpConfig(TrainingConfig):
    """Task 1: an MLP on whole images of reduced size."""

    stage: ClassVar[str] = "train_mlp"
    network: ClassVar[str] = "mlp"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "course": {
            "image_size": 32,
            "hidden": (2048,),
            "activation": "relu",
            "dropout": 0.0,
            "batch_norm": False,
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "schedule": "constant",
            "weight_decay": 0.0,
            "label_smoothing": 0.0,
            "augmentation": ("flip",),
            "epochs": 50,
            "batch_size": 32,
        },
        "best": {
            "hidden": (2048, 1024),
            "augmentation": ("flip", "shift", "zoom", "brightness"),
            "epochs": 250,
        },
        # The best of 50 trials of the default space on the real split, rounded.
        "tuned": {
            "hidden": (362,),
            "activation": "relu",
            "dropout": 0.43,
            "learning_rate": 0.004,
            "weight_decay": 0.17,
            "label_smoothing": 0.2,
            "batch_size": 32,
            "augmentation": ("flip", "shift", "zoom"),
        },
    }

    image_size: int = param(32, "Side in pixels that images are resized to.", low=4, high=1024)
    augmentation: tuple[str, ...] = param(
        ("flip", "shift"), "Random changes of training images.", choices=AUGMENTATIONS
    )

    def validate(self) -> None:
        super().validate()
        check_weights(3 * self.image_size**2, self.hidden)


MLP_SPACE: tuple[Dimension, ...] = (
    *hidden_widths(3, 256, 2048),
    choice("activation", "relu", "gelu", "silu"),
    real("dropout", 0.0, 0.7),
    real("learning_rate", 1e-4, 5e-3, log=True),
    real("weight_decay", 1e-3, 0.5, log=True),
    real("label_smoothing", 0.0, 0.2),
    choice("batch_size", "32", "64", "128"),
    choice("image_size", "24", "32", "40"),
    choice("augmentation", "flip", "flip,shift", "flip,shift,zoom", "flip,shift,zoom,brightness"),
)

TRAIN_MLP = EntryPoint(
    config=TrainMlpConfig,
    task="1",
    example="scenetrack train_mlp --data mit8 --hidden 2048,1024 --dropout 0.5 --epochs 80",
    methods=Methods.ONE,
    space=MLP_SPACE,
)
