"""Computation graph of a Keras network: the calls of its layers in the order they run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scenetrack.errors import ModelError


@dataclass(frozen=True)
class Step:
    """One call of a layer or Keras operation, from symbolic tensors to one symbolic tensor."""

    layer: Any
    inputs: tuple[Any, ...]
    output: Any

    @property
    def rank(self) -> int:
        """Number of axes of the first input."""
        return len(self.inputs[0].shape)


def steps_to(tensors: Iterable[Any]) -> list[Step]:
    """Return the calls that compute ``tensors``, each after those whose outputs it takes."""
    ordered: dict[int, Step] = {}
    waiting = list(tensors)
    while waiting:
        step = producer(waiting[-1])
        missing = [
            tensor
            for tensor in (step.inputs if step else ())
            if id(tensor) not in ordered and producer(tensor)
        ]
        if missing:
            waiting.extend(reversed(missing))
            continue
        if step:
            ordered.setdefault(id(step.output), step)
        waiting.pop()
    return list(ordered.values())


def producer(tensor: Any) -> Step | None:
    """Return the call that computes a symbolic tensor; None for an input.

    Keras has no public way to ask this of a layer that is called twice.
    """
    operation, node_index, _ = tensor._keras_history
    node = operation._inbound_nodes[node_index]
    if not node.input_tensors:
        return None
    return Step(operation, tuple(node.input_tensors), tensor)


def uses(steps: Sequence[Step], kept: Iterable[Any]) -> dict[int, int]:
    """Count the uses of each symbolic tensor by id: as an input or as one of ``kept``."""
    counts: dict[int, int] = {}
    for tensor in (*kept, *(tensor for step in steps for tensor in step.inputs)):
        counts[id(tensor)] = counts.get(id(tensor), 0) + 1
    return counts


def layer_tensors(model: Any) -> dict[str, Any]:
    """Return the symbolic output of each layer by name, in the model's order, without the input.

    Raises:
        ModelError: the model is neither functional nor a built Sequential, or has several inputs.
    """
    if not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise ModelError(
            "a functional or built Sequential Keras model with one input is required. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}"
        )
    first: dict[str, Any] = {}
    for step in steps_to(model.outputs):
        first.setdefault(step.layer.name, step.output)
    return {layer.name: first[layer.name] for layer in model.layers if layer.name in first}


def is_network(layer: Any) -> bool:
    """Return whether ``layer`` is a functional network used as a layer."""
    import keras

    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))
