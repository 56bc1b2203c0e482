"""The metadata of a bundle: the one check that an ONNX file is a bundle."""

from __future__ import annotations

import json

from scenetrack.errors import ModelError
from scenetrack.graphs.runtime import OnnxModel

_NEEDED = frozenset({"probabilities", "label", "scores"})
# Side in pixels; a bundle that asks for more would take the machine's memory.
_LARGEST_SIDE = 4096


def bundle_contents(model: OnnxModel, file: str = "this ONNX model") -> tuple[list[str], int]:
    """Return the names of the classes, and the side in pixels that images are resized to.

    Args:
        model: the opened file.
        file: its name, for the message.

    Raises:
        ModelError: the model is no bundle.
    """
    about = model.metadata
    try:
        classes, size = json.loads(about["classes"]), int(about["image_size"])
        described = about["kind"] == "bundle" and 0 < size <= _LARGEST_SIDE and len(classes) > 0
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        fits = model.outputs["probabilities"][-1] in (-1, len(classes))
    except (KeyError, RecursionError, TypeError, ValueError):
        described = named = fits = False
    if not (described and named and fits and model.outputs.keys() >= _NEEDED):
        raise ModelError(
            f"a bundle is required, but {file} is none: make one with "
            "scenetrack bundle RUN -o scene.onnx"
        )
    return classes, size
