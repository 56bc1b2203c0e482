"""Opens damaged ONNX models, run by test_onnx_files.py in a process that may die.

Usage: python fuzz_onnx.py SEED COUNT. Prints one JSON object: how many models ran, were refused
when they were opened, and failed when they ran. Any exception but a ModelError ends it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper

from scenetrack.errors import ModelError
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**20, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63))
OPERATORS = ["EPContext", *sorted({schema.name for schema in onnx.defs.get_all_schemas()})]
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "own", "ai.onnx.contrib")


def small_network() -> onnx.ModelProto:
    """A convolution, a branch, a Scan and a matrix: what graphs are made of."""
    builder = GraphBuilder("small")
    images = builder.input("images", np.uint8, ["batch", 4, 4, 3])
    values = builder.node("Transpose", builder.node("Cast", images, to=1), perm=[0, 3, 1, 2])
    kernel = builder.constant("kernel", np.ones((2, 3, 2, 2), np.float32))
    values = builder.node("Relu", builder.node("Conv", values, kernel, strides=[2, 2]))
    flat = builder.node("Reshape", values, builder.constant("shape", np.array([-1, 8])))
    scores = builder.node("MatMul", flat, builder.constant("matrix", np.ones((8, 5), np.float32)))
    (scores,) = builder.each([scores], lambda inner, row: [inner.node("Relu", row)], [np.float32])
    builder.output("scores", builder.node("Softmax", scores), np.float32, ["batch", 5])
    model = builder.build({"layer": "hidden_1"})
    _add_branch(model)
    return model


def _add_branch(model: onnx.ModelProto) -> None:
    """``Reshape`` takes its input from an ``If``."""
    nodes = model.graph.node
    place = next(i for i, node in enumerate(nodes) if node.op_type == "Reshape")
    copied = helper.make_node("Identity", [nodes[place].input[0]], ["copied"])
    output = helper.make_tensor_value_info("copied", TensorProto.FLOAT, None)
    branch = helper.make_graph([copied], "branch", [], [output])
    model.graph.initializer.append(helper.make_tensor("always", TensorProto.BOOL, [], [True]))
    nodes.insert(
        place,
        helper.make_node("If", ["always"], ["chosen"], then_branch=branch, else_branch=branch),
    )
    nodes[place + 1].input[0] = "chosen"


def damage_bytes(content: bytes, generator: np.random.Generator) -> bytes:
    """Flip, replace, insert and cut a few bytes."""
    damaged = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        place = int(generator.integers(max(len(damaged), 1)))
        match generator.integers(5):
            case 0:
                damaged[place : place + 1] = generator.bytes(1)
            case 1 if damaged:
                damaged[place] ^= 1 << int(generator.integers(8))
            case 2:
                del damaged[place : place + int(generator.integers(1, 9))]
            case 3:
                damaged[place:place] = generator.bytes(int(generator.integers(1, 9)))
            case _ if generator.random() < 0.2:
                del damaged[max(place, 1) :]
    return bytes(damaged)


def damage_fields(model: onnx.ModelProto, generator: np.random.Generator) -> bytes:
    """Change a few fields, so that the bytes are a model still, and the model is nonsense."""
    for _ in range(generator.integers(1, 5)):
        fields = list(_fields(model))
        if not fields:
            break
        message, field = fields[generator.integers(len(fields))]
        _change(message, field, model, generator)
    content: bytes = model.SerializeToString()
    return content


def _fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    for field, value in message.ListFields():
        yield message, field
        if field.message_type:
            for part in [value] if isinstance(value, Message) else value:
                yield from _fields(part)


def _change(
    message: Message,
    field: FieldDescriptor,
    model: onnx.ModelProto,
    generator: np.random.Generator,
) -> None:
    value = getattr(message, field.name)
    repeated = not isinstance(value, (Message, str, bytes, int, float))
    if not repeated and field.message_type:
        message.ClearField(field.name)
    elif not repeated:
        setattr(message, field.name, _value(field, model, generator))
    elif len(value) and generator.random() < 0.4:
        del value[int(generator.integers(len(value)))]
    elif field.message_type:
        value.append(value[int(generator.integers(len(value)))] if len(value) else None)
    elif len(value) and generator.random() < 0.5:
        value[int(generator.integers(len(value)))] = _value(field, model, generator)
    else:
        value.append(_value(field, model, generator))


def _value(field: FieldDescriptor, model: onnx.ModelProto, generator: np.random.Generator) -> Any:
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return float(generator.choice([np.nan, 1e38, -1, 0]))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return generator.bytes(int(generator.integers(80)))
    if field.type == FieldDescriptor.TYPE_STRING:
        names = [name for node in model.graph.node for name in (*node.input, *node.output)]
        choices = {"op_type": OPERATORS, "domain": DOMAINS}.get(field.name, [*names, ""])
        return str(generator.choice(choices))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return int(generator.choice([item.number for item in field.enum_type.values]))
    number = NUMBERS[generator.integers(len(NUMBERS))]
    bits = 64 if field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64) else 32
    if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32):
        return number % 2**bits
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def outcome(content: bytes) -> str:
    """What becomes of a model that may be damaged: "ran", "refused" or "failed"."""
    result, message = _outcome(content)
    if "\n" in message:
        raise AssertionError(f"a message of several lines: {message}")
    return result


def _outcome(content: bytes) -> tuple[str, str]:
    try:
        model = OnnxModel(content, device="cpu", threads=1)
    except ModelError as error:
        return "refused", str(error)
    inputs = {
        name: np.zeros([min(length, 64) if length >= 0 else 2 for length in shape], np.uint8)
        for name, shape in model.inputs.items()
    }
    try:
        model.run(**inputs)
    except ModelError as error:
        return "failed", str(error)
    return "ran", ""


def main(seed: int, count: int) -> None:
    model = small_network()
    content = model.SerializeToString()
    assert outcome(content) == "ran"
    counts: Counter[str] = Counter()
    for index in range(seed, seed + count):
        print(index, file=sys.stderr, flush=True)
        generator = np.random.default_rng(index)
        if index % 2:
            damaged = damage_bytes(content, generator)
        else:
            damaged = damage_fields(onnx.ModelProto.FromString(content), generator)
        counts[outcome(damaged)] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
