"""Local descriptors of images: dense SIFT and layers of networks, computed by ONNX Runtime."""
