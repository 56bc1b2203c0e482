"""What predictions are worth: accuracy with its interval, per class, and method against method."""

from scenetrack.evaluation.calibration import Reliability, reliability
from scenetrack.evaluation.comparison import (
    Pair,
    compared_pairs,
    comparison_records,
    comparison_table,
    comparison_text,
    method_table,
    pairs_table,
    pairs_text,
)
from scenetrack.evaluation.metrics import ClassScores, Evaluation, evaluate
from scenetrack.evaluation.predictions import PREDICTIONS, Predictions, read_predictions
from scenetrack.evaluation.significance import McNemarResult, holm, mcnemar, wilson_interval

__all__ = [
    "PREDICTIONS",
    "ClassScores",
    "Evaluation",
    "McNemarResult",
    "Pair",
    "Predictions",
    "Reliability",
    "compared_pairs",
    "comparison_records",
    "comparison_table",
    "comparison_text",
    "evaluate",
    "holm",
    "mcnemar",
    "method_table",
    "pairs_table",
    "pairs_text",
    "read_predictions",
    "reliability",
    "wilson_interval",
]
