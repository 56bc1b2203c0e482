"""Export of Keras networks as ONNX graphs that are verified against them."""

from scenetrack.export.truncate import ExportReport, export_truncated, find_layer, layer_names
from scenetrack.export.verify import VerifyReport, verify_against_keras

__all__ = [
    "ExportReport",
    "VerifyReport",
    "export_truncated",
    "find_layer",
    "layer_names",
    "verify_against_keras",
]
