"""The metadata of a bundle: the one check that an ONNX file is a bundle."""

from __future__ import annotations

from scenetrack.errors import ModelError
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.foreign import distinct_names, parsed_json, whole_number

# Outputs, their axes and their dtypes.
_NEEDED = {"label": (1, "int64"), "probabilities": (2, "float32"), "scores": (2, "float32")}
# Side in pixels; a bundle that asks for more would take the machine's memory.
_LARGEST_SIDE = 4096


def bundle_contents(model: OnnxModel, file: str = "this ONNX model") -> tuple[list[str], int]:
    """Return the names of the classes, and the side in pixels that images are resized to.

    Args:
        model: the opened file.
        file: its name, for the message.

    Raises:
        ModelError: the model is no bundle, or does not name its classes in texts that differ.
    """
    about = model.metadata
    try:
        classes = distinct_names(parsed_json(about["classes"]))
        size = whole_number(about["image_size"], 1, _LARGEST_SIDE)
        usable = about["kind"] == "bundle" and bool(classes) and _fits(model, len(classes))
    except (KeyError, ValueError):
        usable = False
    if not usable:
        raise ModelError(
            f"a bundle is required, but {file} is none: make one with "
            "scenetrack bundle RUN -o scene.onnx"
        )
    return list(classes), size


def _fits(model: OnnxModel, classes: int) -> bool:
    """Return whether the model has the outputs of a bundle with so many classes."""
    return all(
        len(model.outputs[name]) in (0, axes)  # 0 where the graph does not tell
        and model.dtypes[name] == dtype
        and (axes == 1 or not model.outputs[name] or model.outputs[name][-1] in (-1, classes))
        for name, (axes, dtype) in _NEEDED.items()
    )
