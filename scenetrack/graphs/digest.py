"""Digest of what an ONNX model computes, whoever exported it and when."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx

from scenetrack.errors import ModelError

# Who made a model, when and from which run: nothing of it changes what the model computes.
_SAYS_NOTHING = frozenset(
    {"metadata_props", "doc_string", "producer_name", "producer_version", "model_version"}
)


def model_digest(model: onnx.ModelProto | bytes) -> str:
    """SHA-256 of a model's operators, weights and interface: 64 hexadecimal digits.

    Metadata (run, seed, versions), documentation and producer do not count, at any depth. The
    names of tensors and nodes do.

    Raises:
        ModelError: the model keeps weights in other files, which the digest would leave out.
    """
    content = model if isinstance(model, bytes) else model.SerializeToString()
    plain = onnx.ModelProto.FromString(content)
    _strip(plain)
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def _strip(message: Any) -> None:
    """Clear what says nothing, in a Protobuf message and all within it."""
    for field, value in message.ListFields():
        if field.name in _SAYS_NOTHING:
            message.ClearField(field.name)
        elif field.name == "external_data":
            raise ModelError(
                "a model with its weights inside is required to name what it computes, but "
                f"tensor {message.name!r} is kept in another file: export it as one file"
            )
        elif field.message_type is not None:
            # A repeated field has a length, a single message none.
            for part in value if hasattr(value, "__len__") else (value,):
                _strip(part)
