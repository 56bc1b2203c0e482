"""Keras layers that change nothing in inference: dropout, noise, random augmentation."""

from __future__ import annotations

from typing import Any


def is_identity(layer: Any) -> bool:
    """Return whether ``layer`` is one of Keras' that return their input in inference."""
    import keras

    passing = (
        keras.layers.Identity,
        keras.layers.Dropout,
        keras.layers.SpatialDropout1D,
        keras.layers.SpatialDropout2D,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.AlphaDropout,
        keras.layers.ActivityRegularization,
    )
    if isinstance(layer, passing):
        return True
    kind = type(layer)
    return kind.__module__.startswith("keras.") and kind.__name__.startswith("Random")
