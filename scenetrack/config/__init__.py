"""The settings of every entry point: names, types, ranges, and the only place a default is written.

A field's name is the parameter's name everywhere: the command-line flag (with hyphens), the
MLproject parameter and the logged MLflow param.
"""

from scenetrack.config.base import (
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
from scenetrack.config.delivery import (
    FORMATS,
    PRECISIONS,
    BundleConfig,
    CompareConfig,
    ExportConfig,
    PredictConfig,
)
from scenetrack.config.stages import (
    ACTIVATIONS,
    AGGREGATIONS,
    AUGMENTATIONS,
    KERNELS,
    MOST_WEIGHTS,
    OPTIMIZERS,
    SAMPLINGS,
    SCHEDULES,
    ActivationsConfig,
    LayerSvmConfig,
    MainConfig,
    PatchBowConfig,
    TrainingConfig,
    TrainMlpConfig,
)

STAGES: tuple[type[StageConfig], ...] = (
    MainConfig,
    TrainMlpConfig,
    ActivationsConfig,
    LayerSvmConfig,
    PatchBowConfig,
)
DELIVERY: tuple[type[EntryPointConfig], ...] = (
    CompareConfig,
    ExportConfig,
    BundleConfig,
    PredictConfig,
)
ENTRY_POINTS: tuple[type[EntryPointConfig], ...] = (*STAGES, *DELIVERY)

__all__ = [
    "ACTIVATIONS",
    "AGGREGATIONS",
    "AUGMENTATIONS",
    "DELIVERY",
    "DENSE_FORMS",
    "DEVICES",
    "ENTRY_POINTS",
    "FORMATS",
    "KERNELS",
    "MOST_WEIGHTS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SAMPLINGS",
    "SCHEDULES",
    "STAGES",
    "ActivationsConfig",
    "BundleConfig",
    "CompareConfig",
    "DataConfig",
    "DeviceConfig",
    "EntryPointConfig",
    "ExportConfig",
    "LayerSvmConfig",
    "MainConfig",
    "PatchBowConfig",
    "PredictConfig",
    "StageConfig",
    "TrainMlpConfig",
    "TrainingConfig",
    "field_types",
    "format_value",
    "param",
]
