"""Keras networks: how each is built, trained, saved and read."""
