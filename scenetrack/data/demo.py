"""The embedded data set: drawn scenes of the eight classes, made once and kept in the cache."""

from __future__ import annotations

from pathlib import Path


def demo_folder() -> Path:
    """The folder of the demo data, drawn on first use."""
    raise NotImplementedError
