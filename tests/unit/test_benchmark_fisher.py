"""The arithmetic of the benchmark of Fisher vectors."""

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


@pytest.fixture
def fisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    pytest.importorskip("resource", reason="the benchmarks measure memory as Unix tells it")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("fisher")
    for name in ("fisher", "_machine"):
        sys.modules.pop(name, None)


def test_ways_are_timed_by_turns_and_the_first_round_does_not_count(
    fisher: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, order = [0.0], []
    seconds = {"a": iter([9.0, 1.0, 3.0, 2.0]), "b": iter([9.0, 5.0, 5.0, 7.0])}
    monkeypatch.setattr(fisher, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def way(name: str) -> None:
        order.append(name)
        now[0] += next(seconds[name])

    ways = {"a": lambda: way("a"), "b": lambda: way("b")}
    assert fisher.measured(ways, rounds=3) == {"a": 2.0, "b": 5.0}
    assert order == ["a", "b"] * 4


def test_rows_are_held_against_scikit_image(fisher: ModuleType) -> None:
    (ours, theirs) = fisher.rows({fisher.OURS: 0.5, fisher.THEIRS: 3.0}, images=100)
    assert ours == {"way": fisher.OURS, "ms an image": "5.00", "times as fast": "6.0"}
    assert theirs["times as fast"] == "1.0"


def test_both_encode_the_same(fisher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "COMPONENTS", 4)
    encoder = fisher.FisherVector(4).fit(fisher.drawn(600, seed=1))
    image = fisher.drawn(50, seed=2)
    theirs = fisher_vector(image, fisher.scikit_mixture(encoder), improved=True)
    np.testing.assert_allclose(
        encoder.transform(image[None])[0], fisher.in_common(theirs), rtol=0, atol=1e-4
    )
