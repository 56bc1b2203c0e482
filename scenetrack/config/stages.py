"""The settings of the stages that train and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scenetrack.config.base import (
    COLOURS,
    DENSE_FORMS,
    DataConfig,
    DeviceConfig,
    StageConfig,
    param,
)
from scenetrack.config.encoding import KERNELS, EncodingConfig, need_kernel
from scenetrack.config.parsing import parse_value, parsed_pairs
from scenetrack.errors import ConfigError

ACTIVATIONS = ("relu", "gelu", "silu", "leaky_relu", "elu", "tanh", "sigmoid")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "warmup_cosine")
AUGMENTATIONS = ("flip", "shift", "zoom", "brightness")
AGGREGATIONS = ("mean", "max", "vote")
SAMPLINGS = ("random", "grid")

PATCH_NETWORK = "patch_mlp"  # the network that takes patches of an image
MOST_WEIGHTS = 500_000_000  # 6 GB while training with adamw


@dataclass(frozen=True)
class EvaluatedConfig(DataConfig):
    """A stage whose methods are tested."""

    repeats: int = param(
        1, "Seeds to run the stage with, one child run each: mean and deviation.", low=1, high=1000
    )
    test: bool = param(
        True, "Test finished methods; false leaves the test images alone while settings are tried."
    )

    def validate(self) -> None:
        super().validate()
        if self.repeats > 1 and not self.test:
            raise ConfigError(
                "repeats is for the spread of test figures, and test is false: leave one out"
            )


@dataclass(frozen=True)
class TrainingConfig(EvaluatedConfig):
    """A stage that trains a network.

    Attributes:
        network: its name in ``networks.registry``.
    """

    network: ClassVar[str]

    preset: str = param("", "Named settings that replace the defaults: course, best or tuned.")
    resume: str = param("", "Run id of a killed training to go on with from its last epoch.")
    hidden: tuple[int, ...] = param(
        (1024, 512), "Widths of the hidden Dense layers, with commas.", low=1, high=65536
    )
    activation: str = param("gelu", "Activation of the hidden layers.", choices=ACTIVATIONS)
    dropout: float = param(0.5, "Dropout after each hidden layer.", low=0, high=0.95)
    batch_norm: bool = param(True, "Batch normalisation before each hidden activation.")
    optimizer: str = param("adamw", "Optimiser.", choices=OPTIMIZERS)
    learning_rate: float = param(5e-4, "Learning rate at the start.", low=1e-8, high=10)
    weight_decay: float = param(0.1, "Decoupled weight decay (adamw only).", low=0, high=10)
    schedule: str = param("cosine", "Learning-rate schedule.", choices=SCHEDULES)
    label_smoothing: float = param(0.1, "Label smoothing.", low=0, high=0.9)
    epochs: int = param(100, "Training epochs.", low=1, high=100000)
    batch_size: int = param(64, "Training batch size.", low=1, high=65536)
    validation: float = param(
        0.1, "Stratified part of the training images kept for validation.", low=0, high=0.9
    )
    patience: int = param(
        0, "Stop after so many epochs without a better validation loss; 0: never.", low=0
    )
    temperatures: str = param(
        "", "Temperatures of methods, where no images are held out to learn them: 'MLP=1.4'."
    )

    def validate(self) -> None:
        super().validate()
        self._check_temperatures()
        if self.patience and not self.validation:
            raise ConfigError(
                "early stopping needs validation images: patience "
                f"{self.patience} came with validation 0; set validation above 0"
            )
        if self.resume and self.repeats > 1:
            raise ConfigError(
                f"one training is resumed at a time: resume came with repeats {self.repeats}; "
                "resume the seed's own run, without repeats"
            )

    def given_temperature(self, method: str) -> float | None:
        """What the scores of ``method`` are divided by; None: it is learnt, or 1."""
        text = parsed_pairs(self.temperatures, hyphens=True).get(method)
        return None if text is None else float(text)

    def _check_temperatures(self) -> None:
        if self.temperatures and self.validation:
            raise ConfigError(
                "temperatures are given where no images are held out to learn them. Received: "
                f"validation {self.validation}; set it to 0, or leave temperatures out"
            )
        for method, text in parsed_pairs(self.temperatures, hyphens=True).items():
            if not 0 < parse_value("temperatures", text, float) < math.inf:
                raise ConfigError(
                    f"temperatures must be numbers above 0. Received: {method}={text}"
                )


@dataclass(frozen=True)
class TrainMlpConfig(TrainingConfig):
    """Task 1: an MLP on whole images made small."""

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
        _check_weights(3 * self.image_size**2, self.hidden)


@dataclass(frozen=True)
class LayerSvmConfig(DeviceConfig, TrainMlpConfig):
    """Task 4: an SVM on one layer's output for the whole image."""

    stage: ClassVar[str] = "layer_svm"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **TrainMlpConfig.presets,
        "best": {**TrainMlpConfig.presets["best"], "layer": ("hidden_1", "hidden_2")},
    }

    model: str = param("", "Run id or .keras file to take the network from; empty: train one.")
    layer: tuple[str, ...] = param(
        (), "Layers whose outputs, joined, are the descriptor; none: the last hidden one."
    )
    kernels: tuple[str, ...] = param(
        ("linear", "rbf"), "SVM kernels to choose among.", choices=KERNELS
    )
    folds: int = param(5, "Folds of the cross-validation inside train.", low=2, high=20)

    def validate(self) -> None:
        super().validate()
        need_kernel(self.kernels)


@dataclass(frozen=True)
class PatchBowConfig(DeviceConfig, EncodingConfig, TrainingConfig):
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
        "Sizes of the image whose patches are described together, as parts of image_size.",
        low=0.01,
        high=1,
    )
    patch_size: int = param(16, "Side of a patch in pixels.", low=2, high=1024)
    stride: int = param(4, "Pixels between neighbouring patches of the grid.", low=1, high=1024)
    patches_per_image: int = param(
        60, "Random patches drawn from an image in an epoch.", low=1, high=100000
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
    learning_rate: float = param(2e-3, "Learning rate at the start.", low=1e-8, high=10)
    weight_decay: float = param(0.01, "Decoupled weight decay (adamw only).", low=0, high=10)
    label_smoothing: float = param(0.0, "Label smoothing.", low=0, high=0.9)
    epochs: int = param(20, "Training epochs.", low=1, high=100000)
    batch_size: int = param(256, "Training batch size, in patches.", low=1, high=65536)
    model: str = param("", "Run id or .keras file to take the network from; empty: train one.")
    aggregation: str = param("mean", "How patch logits become an image's.", choices=AGGREGATIONS)
    layer: tuple[str, ...] = param(
        (), "Layers whose outputs, joined, are the descriptor; none: the last hidden one."
    )
    form: str = param(
        "auto",
        "How descriptors of all patches are computed; auto: what is fastest here.",
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
        _check_weights((self.whitening or pixels) + 3 * self.mean_colour, self.hidden)

    @property
    def scaled_sizes(self) -> tuple[int, ...]:
        """Side in pixels of the image at each scale."""
        return tuple(round(scale * self.image_size) for scale in self.scales)


@dataclass(frozen=True)
class HandcraftedConfig(DeviceConfig, EncodingConfig, EvaluatedConfig):
    """Dense SIFT with the encoders and SVMs of learnt descriptors."""

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


@dataclass(frozen=True)
class MainConfig(DataConfig):
    """The story from the MLP to the comparison, each stage with its defaults."""

    stage: ClassVar[str] = "main"


def _check_weights(inputs: int, hidden: tuple[int, ...]) -> None:
    widths = (inputs, *hidden)
    weights = sum(before * after for before, after in zip(widths, hidden, strict=False))
    if weights > MOST_WEIGHTS:
        raise ConfigError(
            f"the hidden layers may have at most {MOST_WEIGHTS:,} weights. Received: {weights:,}; "
            "choose smaller hidden layers or smaller images"
        )
