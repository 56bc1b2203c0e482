"""Settings of all entry points: names, types, ranges, and the only place that holds defaults.

A field's name is the parameter's name everywhere: the command-line flag (with hyphens), the
MLproject parameter and the logged MLflow param.
"""

from scenetrack.config.activations import ActivationsConfig
from scenetrack.config.base import (
    COLOURS,
    DENSE_FORMS,
    DEVICES,
    DataConfig,
    DeviceConfig,
    EntryPointConfig,
    StageConfig,
    field_types,
    format_value,
    param,
)
from scenetrack.config.bundle import BundleConfig
from scenetrack.config.compare import CompareConfig
from scenetrack.config.encoding import ASSIGNMENTS, NORMALISATIONS, EncodingConfig
from scenetrack.config.entry_points import ENTRY_POINTS
from scenetrack.config.export import PRECISIONS, ExportConfig
from scenetrack.config.handcrafted import HandcraftedConfig
from scenetrack.config.kernel_registry import KERNELS
from scenetrack.config.layer_svm import LayerSvmConfig
from scenetrack.config.main import MainConfig
from scenetrack.config.patch_bow import AGGREGATIONS, PATCH_NETWORK, SAMPLINGS, PatchBowConfig
from scenetrack.config.predict import FORMATS, PredictConfig
from scenetrack.config.train_mlp import AUGMENTATIONS, TrainMlpConfig
from scenetrack.config.training import (
    ACTIVATIONS,
    MOST_WEIGHTS,
    OPTIMIZERS,
    SCHEDULES,
    CutNetworkConfig,
    EvaluatedConfig,
    TrainingConfig,
)
from scenetrack.config.tune import OBJECTIVES, PRUNERS, SAMPLERS, TARGETS, TuneConfig

__all__ = [
    "ACTIVATIONS",
    "AGGREGATIONS",
    "ASSIGNMENTS",
    "AUGMENTATIONS",
    "COLOURS",
    "DENSE_FORMS",
    "DEVICES",
    "ENTRY_POINTS",
    "FORMATS",
    "KERNELS",
    "MOST_WEIGHTS",
    "NORMALISATIONS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PATCH_NETWORK",
    "PRECISIONS",
    "PRUNERS",
    "SAMPLERS",
    "SAMPLINGS",
    "SCHEDULES",
    "TARGETS",
    "ActivationsConfig",
    "BundleConfig",
    "CompareConfig",
    "CutNetworkConfig",
    "DataConfig",
    "DeviceConfig",
    "EncodingConfig",
    "EntryPointConfig",
    "EvaluatedConfig",
    "ExportConfig",
    "HandcraftedConfig",
    "LayerSvmConfig",
    "MainConfig",
    "PatchBowConfig",
    "PredictConfig",
    "StageConfig",
    "TrainMlpConfig",
    "TrainingConfig",
    "TuneConfig",
    "field_types",
    "format_value",
    "param",
]
