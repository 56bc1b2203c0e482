"""ONNX graphs: built node by node, read safely, told apart by digests, run by ONNX Runtime."""
