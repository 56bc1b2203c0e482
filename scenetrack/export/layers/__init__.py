"""The ONNX form of Keras layers: one function for each class, listed in ``registry``."""

from scenetrack.export.layers.activation import add_activation
from scenetrack.export.layers.dense import convert_dense, dense_weights, is_plain_dense
from scenetrack.export.layers.identity import is_identity
from scenetrack.export.layers.normalisation import is_last_axis_norm
from scenetrack.export.layers.registry import class_name, convert

__all__ = [
    "add_activation",
    "class_name",
    "convert",
    "convert_dense",
    "dense_weights",
    "is_identity",
    "is_last_axis_norm",
    "is_plain_dense",
]
