"""Local descriptors of images: dense SIFT, and layers of networks, run by ONNX Runtime."""
