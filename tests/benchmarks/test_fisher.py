"""The arithmetic of the benchmark of Fisher vectors, and what it shares with that of words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from skimage.feature import fisher_vector

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("_machine", "fisher")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules."""
    pytest.importorskip("resource", reason="the benchmarks measure memory as Unix tells it")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        sys.modules.pop(name, None)


def test_ways_are_timed_by_turns_and_the_first_round_does_not_count(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, now, order = benchmarks["_machine"], [0.0], []
    seconds = {"a": iter([9.0, 1.0, 3.0, 2.0]), "b": iter([9.0, 5.0, 5.0, 7.0])}
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def way(name: str) -> None:
        order.append(name)
        now[0] += next(seconds[name])

    ways = {"a": lambda: way("a"), "b": lambda: way("b")}
    assert module.times_by_turns(ways, rounds=3) == {"a": 2.0, "b": 5.0}
    assert order == ["a", "b"] * 4


def test_speeds_are_held_against_one_way(benchmarks: dict[str, ModuleType]) -> None:
    rows = benchmarks["_machine"].speed_table({"ours": 0.5, "theirs": 3.0}, 100, "theirs")
    assert rows.splitlines()[2:] == ["| ours | 5.00 | 6.0 |", "| theirs | 30.00 | 1.0 |"]


def test_both_encode_the_same(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    fisher = benchmarks["fisher"]
    monkeypatch.setattr(fisher, "COMPONENTS", 4)
    encoder = fisher.FisherVector(4).fit(fisher.drawn(600, seed=1))
    image = fisher.drawn(50, seed=2)
    theirs = fisher_vector(image, fisher.scikit_mixture(encoder, "float64"), improved=True)
    np.testing.assert_allclose(
        encoder.transform(image[None])[0], fisher.in_common(theirs), rtol=0, atol=1e-4
    )
