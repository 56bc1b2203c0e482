"""Support vector machines on one vector per image: four kernels, settings chosen inside train.

Every kernel ends in the same few arrays: scores = K(x, support) @ dual.T + intercept, one row of
``dual`` per class, each class trained against all others. So a fitted classifier is saved without
pickles and scored with NumPy alone, and a new kernel adds one function.
"""

from scenetrack.classifiers.classifier import FittedClassifier
from scenetrack.classifiers.cross_validation import (
    HELD_OUT_IMAGES,
    fit_by_cross_validation,
    out_of_fold_scores,
    refit,
    refit_apart,
)
from scenetrack.classifiers.fitting import C_GRID
from scenetrack.classifiers.grid_search import GAMMA_FACTORS, FoldFeatures

__all__ = [
    "C_GRID",
    "GAMMA_FACTORS",
    "HELD_OUT_IMAGES",
    "FittedClassifier",
    "FoldFeatures",
    "fit_by_cross_validation",
    "out_of_fold_scores",
    "refit",
    "refit_apart",
]
