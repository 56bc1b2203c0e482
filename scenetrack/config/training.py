"""Shared settings of stages that evaluate methods, and of stages that train a network."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import DataConfig, DeviceConfig, param
from scenetrack.config.parsing import parse_value, parsed_pairs
from scenetrack.errors import ConfigError

ACTIVATIONS = ("relu", "gelu", "silu", "leaky_relu", "elu", "tanh", "sigmoid")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "warmup_cosine")
MOST_WEIGHTS = 500_000_000  # 6 GB while training with adamw
MOST_LAYERS = 100


@dataclass(frozen=True)
class EvaluatedConfig(DataConfig):
    """Settings of a stage whose methods are evaluated on the test images."""

    repeats: int = param(
        1, "Number of seeds, a child run each; mean and standard deviation.", low=1, high=1000
    )
    test: bool = param(
        True, "Test finished methods; false: do not use the test images while settings are tried."
    )

    @property
    def seeds(self) -> int:
        return self.repeats

    def given_temperature(self, method: str) -> float | None:
        """Return what the scores of ``method`` are divided by; None: it is learnt, or 1."""
        return None

    def validate(self) -> None:
        super().validate()
        if self.repeats > 1 and not self.test:
            raise ConfigError(
                "repeats measures the spread of test results, but test is false: leave one out"
            )


@dataclass(frozen=True)
class TrainingConfig(EvaluatedConfig):
    """Settings of a stage that trains a network.

    Attributes:
        network: name of the network in ``networks.registry``.
    """

    network: ClassVar[str]

    preset: str = param("", "Named settings that replace the defaults: course, best or tuned.")
    resume: str = param("", "Run id of a killed training to resume from its last epoch.")
    hidden: tuple[int, ...] = param(
        (1024, 512), "Widths of the hidden Dense layers, with commas.", low=1, high=65536
    )
    activation: str = param("gelu", "Activation of the hidden layers.", choices=ACTIVATIONS)
    dropout: float = param(0.5, "Dropout after each hidden layer.", low=0, high=0.95)
    batch_norm: bool = param(True, "Batch normalisation before each hidden activation.")
    optimizer: str = param("adamw", "Optimiser.", choices=OPTIMIZERS)
    learning_rate: float = param(5e-4, "Initial learning rate.", low=1e-8, high=10)
    weight_decay: float = param(0.1, "Decoupled weight decay (adamw only).", low=0, high=10)
    schedule: str = param("cosine", "Learning-rate schedule.", choices=SCHEDULES)
    label_smoothing: float = param(0.1, "Label smoothing.", low=0, high=0.9)
    epochs: int = param(100, "Training epochs.", low=1, high=100000)
    batch_size: int = param(64, "Training batch size.", low=1, high=65536)
    validation: float = param(
        0.1, "Stratified fraction of the training images held out for validation.", low=0, high=0.9
    )
    patience: int = param(
        0, "Epochs without a better validation loss before early stopping; 0: never.", low=0
    )
    temperatures: str = param(
        "", "Temperatures of methods, if no images are held out to fit them: 'MLP=1.4'."
    )

    @property
    def resumed_run(self) -> str:
        return self.resume

    def validate(self) -> None:
        super().validate()
        self._check_temperatures()
        if self.patience and not self.validation:
            raise ConfigError(
                "early stopping needs validation images. Received: patience "
                f"{self.patience} with validation 0; set validation above 0"
            )
        if self.resume and self.repeats > 1:
            raise ConfigError(
                f"one training is resumed at a time. Received: resume with repeats {self.repeats}; "
                "resume the seed's own run, without repeats"
            )

    @property
    def read_by_training(self) -> frozenset[str]:
        """Names of the settings that the training may read."""
        return frozenset(item.name for item in dataclasses.fields(self))

    def given_temperature(self, method: str) -> float | None:
        """Return the temperature given for ``method``, or None where it is fitted or 1."""
        text = parsed_pairs(self.temperatures, hyphens=True).get(method)
        return None if text is None else float(text)

    def _check_temperatures(self) -> None:
        if self.temperatures and self.validation:
            raise ConfigError(
                "temperatures are given only if no images are held out to fit them. Received: "
                f"validation {self.validation}; set it to 0, or leave temperatures out"
            )
        for method, text in parsed_pairs(self.temperatures, hyphens=True).items():
            if not 0 < parse_value("temperatures", text, float) < math.inf:
                raise ConfigError(
                    f"temperatures must be numbers above 0. Received: {method}={text}"
                )


@dataclass(frozen=True)
class CutNetworkConfig(DeviceConfig, TrainingConfig):
    """A stage that cuts a network at layers, one that it trains or one that is there."""

    model: str = param("", "Run id or .keras file to take the network from; empty: train one.")
    layer: tuple[str, ...] = param(
        (), "Layers whose concatenated outputs are the descriptor; none: the last hidden layer."
    )


def check_weights(inputs: int, hidden: tuple[int, ...]) -> None:
    """Raise ConfigError for too many Dense layers, or too many weights on ``inputs`` values."""
    if len(hidden) > MOST_LAYERS:
        # Keras visits a network's layers recursively, and Python ends that some way above.
        raise ConfigError(f"hidden takes at most {MOST_LAYERS} layers. Received: {len(hidden)}")
    widths = (inputs, *hidden)
    weights = sum(before * after for before, after in zip(widths, hidden, strict=False))
    if weights > MOST_WEIGHTS:
        raise ConfigError(
            f"the hidden layers may have at most {MOST_WEIGHTS:,} weights. Received: {weights:,}; "
            "choose smaller hidden layers or smaller images"
        )
