"""Registry of the stages, in the order of the help: a new stage is a line here."""

from __future__ import annotations

from scenetrack.config.activations import ACTIVATIONS
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.handcrafted import HANDCRAFTED
from scenetrack.config.layer_svm import LAYER_SVM
from scenetrack.config.main import MAIN
from scenetrack.config.patch_bow import PATCH_BOW
from scenetrack.config.train_mlp import TRAIN_MLP

STAGES: tuple[EntryPoint, ...] = (
    MAIN,
    TRAIN_MLP,
    ACTIVATIONS,
    LAYER_SVM,
    PATCH_BOW,
    HANDCRAFTED,
)
