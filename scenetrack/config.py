"""The settings of every stage: names, types, ranges, and the only place a default is written.

A field's name is the parameter's name everywhere: the command-line flag (with hyphens), the
MLproject parameter and the logged MLflow param.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_type_hints

from scenetrack.errors import ConfigError

ACTIVATIONS = ("relu", "gelu", "silu", "leaky_relu", "elu", "tanh", "sigmoid")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "warmup_cosine")
AUGMENTATIONS = ("flip", "shift", "zoom", "brightness")
AGGREGATIONS = ("mean", "max", "vote")
KERNELS = ("linear", "rbf", "chi2", "intersection")
SAMPLINGS = ("random", "grid")

MOST_WEIGHTS = 500_000_000  # 6 GB while training with adamw


def param(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A config field: its default, what it means, and its inclusive range or its choices.

    For a field that holds several values the range and the choices apply to each of them.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class StageConfig:
    """What every stage takes."""

    stage: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    seed: int = param(0, "Seed of everything that draws.", low=0, high=2**31 - 1)
    experiment: str = param("scenetrack", "MLflow experiment to log to.")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check_value(item, getattr(self, item.name))
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError where two settings contradict each other."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any], preset: str = "") -> Self:
        """The config of ``preset`` (the defaults where it is empty), changed by ``values``.

        Raises:
            ConfigError: an unknown preset or name, or a value out of range.
        """
        if preset and preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise ConfigError(f"preset must be one of: {known}. Received: {preset!r}")
        merged = {**(cls.presets[preset] if preset else {}), **values}
        unknown = sorted(set(merged) - {item.name for item in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"{cls.stage} has no parameter {unknown[0]!r}")
        if "preset" in {item.name for item in dataclasses.fields(cls)}:
            merged["preset"] = preset
        return cls(**merged)

    def as_params(self) -> dict[str, str]:
        """Every setting as MLflow shows it: lists with commas, true and false in lower case."""
        return {
            item.name: format_value(getattr(self, item.name)) for item in dataclasses.fields(self)
        }


@dataclass(frozen=True)
class DataConfig(StageConfig):
    """A stage that reads a data set."""

    data: str = param(
        "demo", "Data set: demo, mit8, or a folder of train/CLASS and test/CLASS, or of CLASS."
    )
    skip_bad: bool = param(False, "Go on without unreadable images and log their list.")


@dataclass(frozen=True)
class TrainingConfig(DataConfig):
    """A stage that trains a network."""

    preset: str = param("", "Named settings that replace the defaults: course.")
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

    def validate(self) -> None:
        super().validate()
        if self.patience and not self.validation:
            raise ConfigError(
                "early stopping needs validation images: patience "
                f"{self.patience} came with validation 0; set validation above 0"
            )


@dataclass(frozen=True)
class TrainMlpConfig(TrainingConfig):
    """Task 1: an MLP on whole images made small."""

    stage: ClassVar[str] = "train_mlp"
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
        }
    }

    image_size: int = param(32, "Side in pixels that images are resized to.", low=4, high=1024)
    augmentation: tuple[str, ...] = param(
        ("flip", "shift"), "Random changes of training images.", choices=AUGMENTATIONS
    )

    def validate(self) -> None:
        super().validate()
        _check_weights(3 * self.image_size**2, self.hidden)


@dataclass(frozen=True)
class LayerSvmConfig(TrainMlpConfig):
    """Task 4: an SVM on one layer's output for the whole image."""

    stage: ClassVar[str] = "layer_svm"

    model: str = param("", "Run id or .keras file to take the network from; empty: train one.")
    layer: str = param("", "Layer whose output is the descriptor; empty: the last hidden one.")
    kernels: tuple[str, ...] = param(
        ("linear", "rbf"), "SVM kernels to choose among.", choices=KERNELS
    )
    folds: int = param(5, "Folds of the cross-validation inside train.", low=2, high=20)

    def validate(self) -> None:
        super().validate()
        _need_kernel(self.kernels)


@dataclass(frozen=True)
class PatchBowConfig(TrainingConfig):
    """Task 5: patch MLP, its patch descriptors, bag of words and SVMs."""

    stage: ClassVar[str] = "patch_bow"
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
        }
    }

    image_size: int = param(128, "Side in pixels that images are resized to.", low=8, high=2048)
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
    layer: str = param("", "Layer whose output is the descriptor; empty: the last hidden one.")
    pca: int = param(80, "Dimensions of descriptors after PCA; 0: no PCA.", low=0)
    codebook_size: int = param(1024, "Visual words.", low=2, high=65536)
    kernels: tuple[str, ...] = param(KERNELS, "SVM kernels, one child run each.", choices=KERNELS)
    folds: int = param(5, "Folds of the cross-validation inside train.", low=2, high=20)

    def validate(self) -> None:
        super().validate()
        if self.patch_size > self.image_size:
            raise ConfigError(
                f"a patch must fit into the image: patch_size {self.patch_size} is larger than "
                f"image_size {self.image_size}"
            )
        pixels = 3 * self.patch_size**2
        if self.whitening > pixels:
            raise ConfigError(
                f"whitening keeps at most the {pixels} values of a patch of "
                f"{self.patch_size} px. Received: whitening={self.whitening}"
            )
        _check_weights((self.whitening or pixels) + 3 * self.mean_colour, self.hidden)
        _need_kernel(self.kernels)


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


STAGES: tuple[type[StageConfig], ...] = (
    MainConfig,
    TrainMlpConfig,
    ActivationsConfig,
    LayerSvmConfig,
    PatchBowConfig,
)


def field_types(config: type[StageConfig]) -> dict[str, Any]:
    """The resolved type of each field: int, float, bool, str or a tuple of one of them."""
    hints = get_type_hints(config)
    return {item.name: hints[item.name] for item in dataclasses.fields(config)}


def format_value(value: object) -> str:
    """A setting as the command line takes it: ``(1024, 512)`` -> ``1024,512``, () -> ``none``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(format_value(item) for item in value) or "none"
    return str(value)


def _check_weights(inputs: int, hidden: tuple[int, ...]) -> None:
    widths = (inputs, *hidden)
    weights = sum(before * after for before, after in zip(widths, hidden, strict=False))
    if weights > MOST_WEIGHTS:
        raise ConfigError(
            f"the hidden layers may have at most {MOST_WEIGHTS:,} weights. Received: {weights:,}; "
            "choose smaller hidden layers or smaller images"
        )


def _need_kernel(kernels: tuple[str, ...]) -> None:
    if not kernels:
        raise ConfigError(f"kernels needs at least one of: {', '.join(KERNELS)}. Received: none")


def _check_value(item: dataclasses.Field[Any], value: Any) -> None:
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    if choices and isinstance(value, tuple) and len(set(value)) < len(value):
        raise ConfigError(f"{item.name} must name each choice once. Received: {','.join(value)}")
    for single in value if isinstance(value, tuple) else (value,):
        if choices and single not in choices:
            raise ConfigError(
                f"{item.name} must be one of: {', '.join(choices)}. Received: {single!r}"
            )
        if low is not None and not low <= single:
            raise ConfigError(f"{item.name} must be at least {low:g}. Received: {single}")
        if high is not None and not single <= high:
            raise ConfigError(f"{item.name} must be at most {high:g}. Received: {single}")
