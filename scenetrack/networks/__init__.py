"""Keras networks: architectures, training with checkpoints, saving and loading."""
