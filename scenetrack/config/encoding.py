"""Settings of the encoding of local descriptors, and of the SVMs on the encodings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from scenetrack.config.base import StageConfig, param
from scenetrack.config.dimensions import Dimension, choice, real, whole
from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.config.kernel_registry import KERNELS
from scenetrack.errors import ConfigError

ASSIGNMENTS = ("hard", "soft")
NORMALISATIONS = ("l1", "l2", "hellinger")
_MOST_CELLS = 64


@dataclass(frozen=True)
class EncodingConfig(StageConfig):
    """Settings of a stage that encodes local descriptors and classifies the encodings."""

    conditions: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
        setting: {"encoder": (encoder.name,)}
        for encoder in ENCODERS.values()
        for setting in encoder.settings
    }

    encoder: str = param(
        "bag_of_words", "Encoding of the local descriptors of an image.", choices=tuple(ENCODERS)
    )
    codebook_size: int = param(
        1024, "Visual words, or components of a Fisher vector's mixture.", low=2, high=65536
    )
    pca: int = param(80, "Dimensions of descriptors after PCA; 0: no PCA.", low=0)
    square_root: bool = param(
        False, "Take square roots of L1-normalised descriptors, if no value is negative."
    )
    position: float = param(
        0.0, "Weight of the position appended to each descriptor; 0: no position.", low=0, high=10
    )
    pyramid: tuple[str, ...] = param(
        ("1x1",), "Regions encoded separately and joined, rows x columns: 1x1,2x2 or 1x1,3x1."
    )
    assignment: str = param(
        "hard", "Bag of words: nearest word, or shares of several.", choices=ASSIGNMENTS
    )
    tf_idf: bool = param(False, "Bag of words: weight words by tf-idf, rare words more.")
    normalisation: str = param(
        "l1",
        "Bag of words: l1, shares; l2, vectors of length 1; hellinger, square roots of shares.",
        choices=NORMALISATIONS,
    )
    kernels: tuple[str, ...] = param(
        ("auto",),
        "SVM kernels, one child run each; auto: all four for bag of words, else linear.",
        choices=("auto", *KERNELS),
    )
    folds: int = param(5, "Folds of the cross-validation on the training images.", low=2, high=20)
    refit_encoder: bool = param(
        False,
        "Refit PCA and encoder in each fold, instead of once on all training images.",
    )

    @property
    def svm_kernels(self) -> tuple[str, ...]:
        """The SVM kernels to compare."""
        return ENCODERS[self.encoder].kernels if self.kernels == ("auto",) else self.kernels

    def validate(self) -> None:
        super().validate()
        for level in self.pyramid or ("none",):
            self._check_level(level)
        if len(set(self.pyramid)) < len(self.pyramid):
            raise ConfigError(
                f"pyramid must name each level once. Received: {','.join(self.pyramid)}"
            )
        if not self.kernels or ("auto" in self.kernels and len(self.kernels) > 1):
            raise ConfigError(
                f"kernels must be auto, or some of: {', '.join(KERNELS)}. Received: "
                f"{','.join(self.kernels) or 'none'}"
            )
        of_histograms = [name for name in self.svm_kernels if KERNELS[name].of_histograms]
        if ENCODERS[self.encoder].signed and of_histograms:
            raise ConfigError(
                f"the {of_histograms[0]} kernel takes no negative values, but {self.encoder} gives "
                "them: choose linear or rbf"
            )
        self._check_settings_of_encoders()

    def _check_level(self, level: str) -> None:
        match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", level)
        if not match or int(match[1]) * int(match[2]) > _MOST_CELLS:
            raise ConfigError(
                f"a level of the pyramid is ROWSxCOLUMNS of at most {_MOST_CELLS} regions, such "
                f"as 2x2. Received: {level!r}"
            )

    def _check_settings_of_encoders(self) -> None:
        """Raise ConfigError if a setting of another encoder was changed."""
        for encoder in ENCODERS.values():
            for name in encoder.settings:
                changed = getattr(self, name) != getattr(EncodingConfig, name)
                if changed and encoder.name != self.encoder:
                    raise ConfigError(
                        f"{name} is a setting of {encoder.name}, but encoder is {self.encoder}: "
                        "leave it out"
                    )


def need_kernel(kernels: tuple[str, ...]) -> None:
    """Raise ConfigError if ``kernels`` is empty."""
    if not kernels:
        raise ConfigError(f"kernels needs at least one of: {', '.join(KERNELS)}. Received: none")


ENCODING_SPACE: tuple[Dimension, ...] = (
    choice("encoder", *ENCODERS),
    *(encoder.size_dimension for encoder in ENCODERS.values()),
    whole("pca", 32, 96, step=16),
    real("position", 0.0, 2.0),
    choice("pyramid", "1x1", "1x1,2x2", "1x1,3x1"),
    *(dimension for encoder in ENCODERS.values() for dimension in encoder.space),
)
