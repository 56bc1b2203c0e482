from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from scenetrack.errors import DataError, ScenetrackError
from scenetrack.evaluation import (
    Evaluation,
    comparison_records,
    comparison_table,
    comparison_text,
    evaluate,
    mcnemar,
    wilson_interval,
)
from scenetrack.records import Figure, Metric, Table

NAMES = ("coast", "forest", "street")


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


def hand_evaluation() -> Evaluation:
    labels = np.array([0, 0, 0, 1, 1, 2])
    scores = np.array(
        [[3, 1, 0], [2, 1, 0], [0, 1, 0], [0, 5, 0], [1, 0, 0], [0, 0, -0.5]], dtype=np.float32
    )
    return evaluate(labels, scores, NAMES)


def test_evaluation_by_hand() -> None:
    result = hand_evaluation()
    assert result.predictions.tolist() == [0, 0, 1, 1, 0, 0]
    assert result.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert result.accuracy == 0.5
    assert (result.low, result.high) == wilson_interval(3, 6)
    coast, forest, street = result.per_class
    assert (coast.precision, coast.recall, coast.support) == (0.5, 2 / 3, 3)
    assert coast.f1 == pytest.approx(4 / 7)
    assert (forest.precision, forest.recall, forest.f1) == (0.5, 0.5, 0.5)
    assert (street.precision, street.recall, street.f1, street.support) == (0, 0, 0, 1)
    assert result.macro_f1 == pytest.approx((4 / 7 + 0.5 + 0) / 3)
    assert result.scores is not None
    assert result.scores.tolist() == [3, 2, 1, 5, 1, 0]


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10**6))
def test_evaluation_is_scikit_learns(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, images))
    result = evaluate(labels, predicted, [str(k) for k in range(classes)])
    every = list(range(classes))
    np.testing.assert_array_equal(
        result.confusion, confusion_matrix(labels, predicted, labels=every)
    )
    expected = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0.0)
    ours = [(c.precision, c.recall, c.f1, c.support) for c in result.per_class]
    np.testing.assert_allclose(np.transpose(ours), expected)
    occurring = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0.0
    )
    assert result.macro_f1 == pytest.approx(occurring[2])
    assert result.scores is None


def test_metrics_have_the_names_of_every_run() -> None:
    result = hand_evaluation()
    assert list(result.metrics()) == [
        "test/accuracy",
        "test/accuracy_low",
        "test/accuracy_high",
        "test/macro_f1",
    ]
    assert result.metrics("val")["val/accuracy"] == 0.5


def test_records_hold_figures_tables_and_each_prediction() -> None:
    files = [f"{n}.jpg" for n in range(6)]
    records = hand_evaluation().records(files, title="SVM")
    assert {r.name: r.value for r in records if isinstance(r, Metric)} == (
        hand_evaluation().metrics()
    )
    assert [r.name for r in records if isinstance(r, Figure)] == ["figures/confusion_matrix.png"]
    tables = {r.name: r for r in records if isinstance(r, Table)}
    assert tables["per_class.json"].rows[1] == ("forest", 0.5, 0.5, 0.5, 2)
    assert tables["predictions.csv"].rows[2] == ("2.jpg", "coast", "forest", 1.0)
    bare = evaluate(np.array([0]), np.array([1]), NAMES).records(["a.jpg"])
    assert next(r for r in bare if isinstance(r, Table) and "pred" in r.name).rows == [
        ("a.jpg", "coast", "forest", "")
    ]
    with pytest.raises(ValueError):
        hand_evaluation().records(files[:5])


def test_summary_names_the_commonest_mistake() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    lines = evaluate(labels, np.array([0, 1, 1, 1, 0, 2]), NAMES).summary("MLP").splitlines()
    assert lines[0].startswith("MLP: 3 of 6 test images right, 50.0% (95% interval 18.8% to 81.2%)")
    assert lines[1:] == ["commonest mistake: coast taken for forest, 2 of 3 images"]
    assert len(evaluate(labels, labels, NAMES).summary("MLP").splitlines()) == 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3)), r"3 images and 3 classes .* \(2, 3\)"),
        (np.zeros((3, 2)), r"\(3, 2\)"),
        (np.full((3, 3), math.nan), "diverged"),
    ],
)
def test_scores_that_do_not_fit(scores: np.ndarray, message: str) -> None:
    with pytest.raises(ScenetrackError, match=message):
        evaluate(np.array([0, 1, 2]), scores, NAMES)


def test_an_empty_test_set() -> None:
    with pytest.raises(DataError, match="at least one test image"):
        evaluate(np.empty(0, dtype=np.int64), np.empty((0, 3)), NAMES)


def three_methods() -> dict[str, Evaluation]:
    labels = np.zeros(12, dtype=np.int64)
    return {
        "end to end": evaluate(labels, np.array([0] * 6 + [1] * 6), NAMES),
        "worse": evaluate(labels, np.array([0] * 3 + [1] * 9), NAMES),
        "best": evaluate(labels, np.zeros(12, dtype=np.int64), NAMES),
    }


def test_comparison_is_best_first_with_p_against_the_first() -> None:
    table = comparison_table(three_methods())
    assert [row[0] for row in table.rows] == ["best", "end to end", "worse"]
    assert table.columns[-1] == "p against end to end"
    # 2 / 2**6, none against itself, 2 / 2**3
    assert [row[-1] for row in table.rows] == [2 / 64, None, 0.25]
    low, high = wilson_interval(3, 12)
    assert table.rows[2][1:4] == (0.25, low, high)
    assert comparison_table(three_methods(), "best").rows[0][-1] is None


def test_comparison_text_is_aligned() -> None:
    lines = comparison_text(three_methods()).splitlines()
    assert lines[0].split() == [
        "method", "accuracy", "95%", "interval", "macro", "F1", "p", "against", "end", "to", "end"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[2:]] == ["best", "end", "worse"]
    assert lines[2].endswith("0.0312")
    assert len({line.index("%") for line in lines[3:]}) == 1
    assert max(map(len, lines)) == len(lines[1])


def test_comparison_records_are_a_table_and_a_figure() -> None:
    table, figure = comparison_records(three_methods(), title="All")
    assert isinstance(table, Table)
    assert isinstance(figure, Figure)


def test_methods_on_different_images_are_not_compared() -> None:
    others = evaluate(np.array([1, 2]), np.array([1, 2]), NAMES)
    with pytest.raises(ScenetrackError, match="same images, but 'other'"):
        comparison_table({**three_methods(), "other": others})
