"""The settings of every entry point: names, types, ranges, and the only place a default is written.

A field's name is the parameter's name everywhere: the command-line flag (with hyphens), the
MLproject parameter and the logged MLflow param.
"""

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
from scenetrack.config.encoding import (
    ASSIGNMENTS,
    ENCODERS,
    KERNELS,
    NORMALISATIONS,
    EncodingConfig,
)
from scenetrack.config.stages import (
    ACTIVATIONS,
    AGGREGATIONS,
    AUGMENTATIONS,
    MOST_WEIGHTS,
    OPTIMIZERS,
    PATCH_NETWORK,
    SAMPLINGS,
    SCHEDULES,
    ActivationsConfig,
    EvaluatedConfig,
    HandcraftedConfig,
    LayerSvmConfig,
    MainConfig,
    PatchBowConfig,
    TrainingConfig,
    TrainMlpConfig,
)
from scenetrack.config.tuning import OBJECTIVES, PRUNERS, SAMPLERS, TARGETS, TuneConfig
from scenetrack.config.untracked import (
    FORMATS,
    PRECISIONS,
    BundleConfig,
    CompareConfig,
    ExportConfig,
    PredictConfig,
)

STAGES: tuple[type[StageConfig], ...] = (
    MainConfig,
    TrainMlpConfig,
    ActivationsConfig,
    LayerSvmConfig,
    PatchBowConfig,
    HandcraftedConfig,
    TuneConfig,
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
    "ASSIGNMENTS",
    "AUGMENTATIONS",
    "COLOURS",
    "DELIVERY",
    "DENSE_FORMS",
    "DEVICES",
    "ENCODERS",
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
    "STAGES",
    "TARGETS",
    "ActivationsConfig",
    "BundleConfig",
    "CompareConfig",
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
