"""Own Keras layers: contrast normalisation and PCA whitening, with ``to_graph`` for ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from sklearn.decomposition import PCA

if TYPE_CHECKING:
    from scenetrack.graphs.builder import GraphBuilder


@keras.saving.register_keras_serializable("scenetrack")
class ContrastNormalization(keras.layers.Layer):
    """Subtracts the mean of each patch and divides by its standard deviation plus an offset.

    With p a patch of grey levels, m its mean and s its standard deviation over all its values:
    (p - m) / (s + offset). The offset keeps the noise of flat patches from being amplified (Coates,
    Lee and Ng 2011, section 3.2.1). float32 [N, H, W, C] -> [N, H, W, C].

    Args:
        offset: positive, in the units of the input (grey levels).
    """

    def __init__(self, offset: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        values = ops.cast(inputs, self.compute_dtype)
        centred = values - ops.mean(values, axis=(1, 2, 3), keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centred), axis=(1, 2, 3), keepdims=True))
        return centred / (deviation + self.offset)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset}

    def to_graph(self, builder: GraphBuilder, tensor: str) -> str:
        """Add the layer to the graph and return its output."""
        axes = builder.constant("axes", np.array([1, 2, 3], np.int64))
        mean = builder.node("ReduceMean", tensor, axes, keepdims=1)
        centred = builder.node("Sub", tensor, mean)
        squared = builder.node("Mul", centred, centred)
        deviation = builder.node("Sqrt", builder.node("ReduceMean", squared, axes, keepdims=1))
        offset = builder.constant("offset", np.array(self.offset, np.float32))
        return builder.node("Div", centred, builder.node("Add", deviation, offset))


@keras.saving.register_keras_serializable("scenetrack")
class Whitening(keras.layers.Layer):
    """PCA whitening learnt from samples: W'(x - mu), float32 [N, D] -> [N, dimensions].

    The columns of W are the leading eigenvectors of the samples' covariance, each divided by the
    square root of its eigenvalue plus ``epsilon`` times the mean of all eigenvalues, which keeps
    the noise of the last directions from being amplified.

    Args:
        dimensions: number of directions to keep, at most D.
        epsilon: regularisation, relative to the mean eigenvalue.
    """

    def __init__(self, dimensions: int, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimensions = dimensions
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1]
        self.center = self.add_weight(
            shape=(width,), initializer="zeros", trainable=False, name="center"
        )
        self.projection = self.add_weight(
            shape=(width, self.dimensions), initializer="zeros", trainable=False, name="projection"
        )

    def adapt(self, samples: np.ndarray) -> None:
        """Fit the mean and the projection to float [M, D], M at least ``dimensions``.

        The same samples give the same projection, including the signs.
        """
        # Exact for the usual patches; for wide ones the leading directions only, so that a
        # D x D matrix of many gigabytes is never made.
        with np.errstate(invalid="ignore"):  # the unused variance ratios of constant samples
            pca = PCA(self.dimensions, random_state=0).fit(np.asarray(samples, np.float32))
        mean_variance = float(samples.var(axis=0, dtype=np.float64).mean())
        scale = np.sqrt(pca.explained_variance_ + self.epsilon * mean_variance + 1e-12)
        self.center.assign(pca.mean_)
        self.projection.assign(pca.components_.T / scale)

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs - self.center, self.projection)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.dimensions)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dimensions": self.dimensions, "epsilon": self.epsilon}

    def to_graph(self, builder: GraphBuilder, tensor: str) -> str:
        """Add the layer to the graph and return its output."""
        center = builder.constant("center", np.asarray(self.center, np.float32))
        projection = builder.constant("projection", np.asarray(self.projection, np.float32))
        return builder.node("MatMul", builder.node("Sub", tensor, center), projection)
