"""Comparison of methods on the same images: intervals, and p values of all pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.metrics import Evaluation
from scenetrack.evaluation.significance import McNemarResult, holm, mcnemar
from scenetrack.figures import draw_method_comparison
from scenetrack.records import Record, Table
from scenetrack.system.terminal import visible_name

Evaluations = Mapping[str, Evaluation]

_FIGURES = ("method", "accuracy", "low", "high", "macro_f1", "ece")
_SHOWN = ("method", "accuracy", "95% interval", "macro F1", "ECE")
_SCOPE = "interval and p: what other test images might change; --repeats: what other seeds change"


@dataclass(frozen=True)
class Pair:
    """Two methods, McNemar's test of them, and its p adjusted by Holm for all pairs together."""

    first: str
    second: str
    test: McNemarResult
    p_holm: float


def compared_pairs(evaluations: Evaluations) -> list[Pair]:
    """Return every pair of methods, the better one first, in the order of the comparison table.

    Raises:
        ScenetrackError: the evaluations are not of the same images.
    """
    names = [name for name, _ in _best_first(evaluations)]
    pairs = list(combinations(names, 2))
    tests = [_test(evaluations, first, second) for first, second in pairs]
    adjusted = holm([test.p for test in tests])
    return [
        Pair(first, second, test, p)
        for (first, second), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def method_table(evaluations: Evaluations) -> Table:
    """Tabulate the methods best first, each with its figures alone."""
    rows = [_figures(name, evaluation) for name, evaluation in _best_first(evaluations)]
    return Table("methods.json", _FIGURES, rows)


def comparison_table(evaluations: Evaluations, against: str = "") -> Table:
    """Tabulate the methods best first, with interval and McNemar's p, plain and by Holm.

    Args:
        evaluations: by name of the method, all of the same images.
        against: the method that the others are tested against; empty: the first one. Holm's
            correction is for these tests.

    Raises:
        ScenetrackError: the evaluations are not of the same images.
    """
    against = against or next(iter(evaluations))
    others = [name for name in evaluations if name != against]
    plain = [_test(evaluations, name, against).p for name in others]
    adjusted = holm(plain)
    tests = {name: (plain[k], adjusted[k]) for k, name in enumerate(others)}
    rows = [
        (*_figures(name, evaluation), *tests.get(name, (None, None)))
        for name, evaluation in _best_first(evaluations)
    ]
    return Table("comparison.json", (*_FIGURES, f"p against {against}", "p_holm"), rows)


def pairs_table(evaluations: Evaluations) -> Table:
    """Apply McNemar's test to every pair, with Holm's correction for all of them.

    Raises:
        ScenetrackError: the evaluations are not of the same images.
    """
    rows = [
        (pair.first, pair.second, pair.test.b, pair.test.c, pair.test.p, pair.p_holm)
        for pair in compared_pairs(evaluations)
    ]
    columns = ("method a", "method b", "only a right", "only b right", "p", "p_holm")
    return Table("mcnemar_pairs.json", columns, rows)


def comparison_text(evaluations: Evaluations, against: str = "") -> str:
    """Format the comparison table as aligned lines for the terminal, best first, with Holm's p."""
    against = against or next(iter(evaluations))
    rows = [
        [*_cells(row[:6]), p_text(row[-1])] for row in comparison_table(evaluations, against).rows
    ]
    lines = aligned([[*_SHOWN, f"Holm's p against {against}"], *rows])
    tests = len(rows) - 1
    if not tests:
        return "\n".join(lines)
    counted = "1 test" if tests == 1 else f"{tests} tests"
    note = f"p: McNemar's exact test on the same images, adjusted by Holm for {counted}"
    return "\n".join([*lines, note, _SCOPE])


def pairs_text(evaluations: Evaluations) -> str:
    """Number the methods, best first, and show Holm's p of each pair in a triangle below."""
    ordered = _best_first(evaluations)
    figures = [
        _cells(_figures(f"{k}  {name}", evaluation))
        for k, (name, evaluation) in enumerate(ordered, 1)
    ]
    lines = aligned([list(_SHOWN), *figures])
    if len(ordered) < 2:
        return "\n".join(lines)
    p = {(pair.first, pair.second): pair.p_holm for pair in compared_pairs(evaluations)}
    names = [name for name, _ in ordered]
    triangle = [["", *(str(k) for k in range(1, len(names)))]]
    for place, name in enumerate(names[1:], 1):
        triangle.append([str(place + 1), *(p_text(p[other, name]) for other in names[:place])])
        triangle[-1] += [""] * (len(names) - 1 - place)
    note = f"McNemar's exact p of each pair, adjusted by Holm for {len(p)} in all"
    return "\n".join([*lines, "", note, *aligned(triangle)[:1], *aligned(triangle)[2:], "", _SCOPE])


def comparison_records(
    evaluations: Evaluations, against: str = "", title: str = ""
) -> list[Record]:
    """Return the comparison as tables for the tracker, all pairs among them, then a figure."""
    bars = [
        (name, evaluation.accuracy, evaluation.low, evaluation.high)
        for name, evaluation in _best_first(evaluations)
    ]
    tables = [comparison_table(evaluations, against), pairs_table(evaluations)]
    return [*tables, draw_method_comparison(bars, title)]


def aligned(cells: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Align rows of texts as lines: the first row over a rule, the columns ``left`` to the left."""
    cells = [[visible_name(text) for text in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    ways = [str.ljust if place in left else str.rjust for place in range(len(widths))]
    lines = [
        "  ".join(
            way(text, width) for way, text, width in zip(ways, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def p_text(p: object) -> str:
    """Format a p value with four digits; nothing for None."""
    if not isinstance(p, float):
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _test(evaluations: Evaluations, first: str, second: str) -> McNemarResult:
    left, right = evaluations[first], evaluations[second]
    if not np.array_equal(left.labels, right.labels):
        raise ScenetrackError(
            f"methods are compared on the same images, but {first!r} and {second!r} were tested "
            "on different ones"
        )
    return mcnemar(left.labels, left.predictions, right.predictions)


def _best_first(evaluations: Evaluations) -> list[tuple[str, Evaluation]]:
    return sorted(evaluations.items(), key=lambda item: -item[1].accuracy)


def _figures(name: str, evaluation: Evaluation) -> tuple[object, ...]:
    return (
        name,
        evaluation.accuracy,
        evaluation.low,
        evaluation.high,
        evaluation.macro_f1,
        evaluation.ece,
    )


def _cells(figures: Sequence[object]) -> list[str]:
    name, accuracy, low, high, macro_f1, ece = figures
    shown = "" if ece is None else f"{ece:.3f}"
    return [str(name), f"{accuracy:.1%}", f"{low:.1%} - {high:.1%}", f"{macro_f1:.3f}", shown]
