"""Dimensions of a search space: the ranges that a study draws a setting from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Condition = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Dimension:
    """One setting that a trial draws.

    Attributes:
        name: of the dimension in the study.
        setting: the target's parameter that it sets; several dimensions of one list give its items
            in their order. Empty: it only decides which others are drawn.
        kind: int, float or str.
        low, high: of a number, both included.
        log: whether a number is drawn evenly in its logarithm.
        step: of a number; 0 for any, or for every whole one.
        choices: of a text, as the command line takes them.
        when: by another dimension or setting the values with which this one is drawn at all.
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
        """As ``--space`` takes them."""
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
    """A whole number, of the setting with its name where no other is given."""
    return Dimension(name, setting or name, int, low, high, log, step, when=when or {})


def real(name: str, low: float, high: float, *, log: bool = False) -> Dimension:
    """A number."""
    return Dimension(name, name, float, low, high, log)


def choice(name: str, *choices: str, when: Condition | None = None) -> Dimension:
    """One of some texts."""
    return Dimension(name, name, choices=choices, when=when or {})


def hidden_widths(deepest: int, low: int, high: int) -> tuple[Dimension, ...]:
    """Return the number of hidden layers and the width of each."""
    depths = [str(depth) for depth in range(1, deepest + 1)]
    return (
        Dimension("layers", "", int, 1, deepest),
        *(
            whole(
                f"width_{place}",
                low,
                high,
                setting="hidden",
                log=True,
                when={"layers": tuple(depths[place - 1 :])} if place > 1 else None,
            )
            for place in range(1, deepest + 1)
        ),
    )
