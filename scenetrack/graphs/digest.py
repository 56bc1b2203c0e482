"""Digest of what an ONNX model computes, whoever exported it and when."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx

from scenetrack.errors import ModelError

# Producer, versions, run and documentation: none of them changes what the model computes.
_WITHOUT_EFFECT = frozenset(
    {"metadata_props", "doc_string", "producer_name", "producer_version", "model_version"}
)


def model_digest(model: onnx.ModelProto | bytes) -> str:
    """Return the SHA-256 of a model's operators, weights and interface: 64 hexadecimal digits.

    Metadata (run, seed, versions), documentation and producer are excluded at any depth. Names of
    tensors and nodes are included.

    Raises:
        ModelError: the model keeps weights in other files, which the digest would not cover.
    """
    content = model if isinstance(model, bytes) else model.SerializeToString()
    plain = onnx.ModelProto.FromString(content)
    _strip(plain)
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def _strip(message: Any) -> None:
    """Clear the fields without effect in a Protobuf message and all messages inside it."""
    for field, value in message.ListFields():
        if field.name in _WITHOUT_EFFECT:
            message.ClearField(field.name)
        elif field.name == "external_data":
            raise ModelError(
                "a model with its weights inside is required to name what it computes, but "
                f"tensor {message.name!r} is kept in another file: export it as one file"
            )
        elif field.message_type is not None:
            # A repeated field has a length, a single message does not.
            for part in value if hasattr(value, "__len__") else (value,):
                _strip(part)
