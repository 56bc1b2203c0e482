"""Scene and image classification: Keras to ONNX descriptors, encoders, SVMs, tracked in MLflow."""

__version__ = "0.2.0"
