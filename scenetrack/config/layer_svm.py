"""Settings of ``layer_svm`` (task 4): an SVM on layers of a network of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scenetrack.config.base import param
from scenetrack.config.dimensions import choice
from scenetrack.config.encoding import need_kernel
from scenetrack.config.entry_point import EntryPoint, Methods
from scenetrack.config.kernel_registry import KERNELS
from scenetrack.config.train_mlp import MLP_SPACE, TrainMlpConfig
from scenetrack.config.training import CutNetworkConfig


@dataclass(frozen=True)
class LayerSvmConfig(CutNetworkConfig, TrainMlpConfig):
    """Task 4: an SVM on one layer's output for the whole image."""

    stage: ClassVar[str] = "layer_svm"
    chooses_on_held_out: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **TrainMlpConfig.presets,
        "best": {**TrainMlpConfig.presets["best"], "layer": ("hidden_1", "hidden_2")},
    }

    kernels: tuple[str, ...] = param(
        ("linear", "rbf"), "SVM kernels to choose from.", choices=tuple(KERNELS)
    )
    folds: int = param(5, "Folds of the cross-validation on the training images.", low=2, high=20)

    def validate(self) -> None:
        super().validate()
        need_kernel(self.kernels)


LAYER_SVM = EntryPoint(
    config=LayerSvmConfig,
    task="4",
    example="scenetrack layer_svm --data photos --kernels linear,rbf --folds 10",
    methods=Methods.SEVERAL,
    space=(*MLP_SPACE, choice("kernels", "linear", "rbf")),
)
