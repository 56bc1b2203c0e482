"""Intervals and tests, each against its formula by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from scenetrack.errors import DataError
from scenetrack.evaluation import holm, mcnemar, wilson_interval

probabilities = st.lists(st.floats(0, 1), max_size=12)


def test_wilson_interval_by_hand() -> None:
    # z = 1.959964, z^2 = 3.841459: centre (0.9 + 0.01920729) / 1.03841459,
    # half 1.959964 * sqrt(0.0009 + 3.841459 / 40000) / 1.03841459.
    low, high = wilson_interval(90, 100)
    assert low == pytest.approx(0.825635, abs=1e-5)
    assert high == pytest.approx(0.944772, abs=1e-5)
    assert wilson_interval(0, 20)[0] == 0
    assert wilson_interval(20, 20)[1] == 1


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_is_scipys(total: int, share: float, level: float) -> None:
    correct = round(total * share)
    low, high = wilson_interval(correct, total, level)
    expected = binomtest(correct, total).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= correct / total <= high <= 1


def test_wilson_interval_needs_an_image() -> None:
    with pytest.raises(DataError, match="at least one test image"):
        wilson_interval(0, 0)


def test_mcnemar_by_hand() -> None:
    labels = np.zeros(12, dtype=np.int64)
    first = np.array([0] * 9 + [1] * 3)
    second = np.array([0] * 4 + [1] * 5 + [0] + [1] * 2)
    result = mcnemar(labels, first, second)
    assert (result.b, result.c) == (5, 1)
    # 2 * (C(6, 0) + C(6, 1)) / 2**6
    assert result.p == 14 / 64
    assert mcnemar(labels, first, first).p == 1


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    labels = np.zeros(b + c + 1, dtype=np.int64)
    first = np.array([0] * b + [1] * c + [1])
    second = np.array([1] * b + [0] * c + [1])
    one, other = mcnemar(labels, first, second), mcnemar(labels, second, first)
    assert (one.b, one.c, one.p) == (other.c, other.b, other.p)
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert one.p == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_holm_by_hand() -> None:
    # Smallest first: 4 x 0.01, 3 x 0.02, 2 x 0.03 (0.06 as well), 1 x 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    # The second would be 0.04, but no p overtakes a smaller one; none exceeds 1.
    assert holm([0.03, 0.04]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(probabilities)
def test_holm_rejects_what_his_procedure_rejects(p_values: list[float]) -> None:
    for level in (0.01, 0.05, 0.3):
        # As the paper says it: go on from the smallest while p <= level / (tests left).
        rejected = set()
        order = sorted(range(len(p_values)), key=lambda k: p_values[k])
        for done, place in enumerate(order):
            if (len(p_values) - done) * p_values[place] > level:
                break
            rejected.add(place)
        assert {k for k, p in enumerate(holm(p_values)) if p <= level} == rejected


@given(probabilities, st.randoms())
def test_holm_knows_no_order_and_never_helps(p_values: list[float], random: object) -> None:
    places = list(range(len(p_values)))
    random.shuffle(places)  # type: ignore[attr-defined]
    adjusted = holm(p_values)
    assert holm([p_values[k] for k in places]) == [adjusted[k] for k in places]
    for plain, later in zip(p_values, adjusted, strict=True):
        assert plain <= later <= min(1, len(p_values) * plain + 1e-12)
