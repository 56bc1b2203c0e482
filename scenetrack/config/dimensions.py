"""Dimensions of a search space: the range that a study samples a setting from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Condition = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Dimension:
    """One setting that a trial samples.

    Attributes:
        name: name of the dimension in the study.
        setting: parameter of the target; several dimensions of one list give its items in their
            order. Empty: the dimension only decides which other dimensions are sampled.
        kind: int, float or str.
        low, high: bounds of a number, both included.
        log: whether a number is sampled uniformly in its logarithm.
        step: step of a number; 0 for any number, or for every whole number.
        choices: choices of a text, as the command line takes them.
        when: values of other dimensions or settings on which this dimension is sampled at all.
    """

    name: str
    setting: str
    kind: type = str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float = 0.0
    choices: tuple[str, ...] = ()
    when: Condition = field(default_factory=dict)

    @property
    def values(self) -> str:
        """The range or choices in the syntax of ``--space``."""
        if self.kind is str:
            return "|".join(self.choices)
        text = f"{self.low:.10g}:{self.high:.10g}"
        if self.log:
            return f"{text}:log"
        return f"{text}:{self.step:.10g}" if self.step else text


def whole(
    name: str,
    low: int,
    high: int,
    *,
    setting: str = "",
    step: int = 0,
    log: bool = False,
    when: Condition | None = None,
) -> Dimension:
    """Return a dimension of whole numbers; its setting has the same name unless it is given."""
    return Dimension(name, setting or name, int, low, high, log, step, when=when or {})


def real(name: str, low: float, high: float, *, log: bool = False) -> Dimension:
    """Return a dimension of real numbers."""
    return Dimension(name, name, float, low, high, log)


def choice(name: str, *choices: str, when: Condition | None = None) -> Dimension:
    """Return a dimension of texts."""
    return Dimension(name, name, choices=choices, when=when or {})


def hidden_widths(deepest: int, low: int, high: int) -> tuple[Dimension, ...]:
    """Return the dimensions of the number of hidden layers and of the width of each."""
    depths = [str(depth) for depth in range(1, deepest + 1)]
    return (
        Dimension("layers", "", int, 1, deepest),
        *(
            whole(
                f"width_{layer}",
                low,
                high,
                setting="hidden",
                log=True,
                when={"layers": tuple(depths[layer - 1 :])} if layer > 1 else None,
            )
            for layer in range(1, deepest + 1)
        ),
    )
