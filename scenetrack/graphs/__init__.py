"""ONNX graphs: construction, safe reading, digests, and inference with ONNX Runtime."""
