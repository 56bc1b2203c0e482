from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from scenetrack.errors import DataError, ScenetrackError
from scenetrack.evaluation import Evaluation, evaluate, wilson_interval
from scenetrack.records import Figure, Metric, Table

NAMES = ("coast", "forest", "street")


# Coast takes four of six: two of its own, a forest and a street; a coast is taken for a forest.
LABELS = np.array([0, 0, 0, 1, 1, 2])
SHARES = np.array(
    [
        [0.9, 0.1, 0.0],
        [0.5, 0.3, 0.2],
        [0.1, 0.8, 0.1],
        [0.0, 1.0, 0.0],
        [0.9, 0.1, 0.0],
        [0.4, 0.3, 0.3],
    ]
)


def hand_evaluation() -> Evaluation:
    scores = np.array(
        [[3, 1, 0], [2, 1, 0], [0, 1, 0], [0, 5, 0], [1, 0, 0], [0, 0, -0.5]], dtype=np.float32
    )
    return evaluate(LABELS, scores, NAMES, SHARES)


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
    # By confidence: 0.4 wrong; 0.5 right; 0.8 wrong; two of 0.9, one of them right; 1.0 right.
    assert result.ece == pytest.approx((0.4 + 0.5 + 0.8 + 2 * 0.4 + 0) / 6)


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
    assert result.ece is None
    assert result.recalls() == {
        f"test/recall/{c.name}": c.recall for c in result.per_class if c.support
    }


def test_metrics_have_the_names_of_every_run() -> None:
    result = hand_evaluation()
    assert list(result.metrics()) == [
        "test/accuracy",
        "test/accuracy_low",
        "test/accuracy_high",
        "test/macro_f1",
        "test/ece",
    ]
    assert result.metrics("val")["val/accuracy"] == 0.5
    assert "test/ece" not in evaluate(LABELS, LABELS, NAMES).metrics()


def test_recalls_are_metrics_under_names_that_mlflow_takes() -> None:
    names = ("a/b", "a:b", "森林", "no images", "w" * 300)
    labels = np.array([0, 0, 1, 2, 4])
    found = evaluate(labels, np.array([0, 1, 1, 2, 3]), names).recalls()
    assert found == {
        "test/recall/a_b": 0.5,
        "test/recall/a_b 1": 1,
        "test/recall/森林": 1,
        f"test/recall/{'w' * 200}": 0,
    }
    for name in found:
        _validate_metric_name(name)


def test_many_classes_have_no_metric_each() -> None:
    for classes, expected in ((50, 50), (51, 0)):
        labels = np.arange(classes)
        assert len(evaluate(labels, labels, [str(k) for k in labels]).recalls()) == expected


def test_records_hold_figures_tables_and_each_prediction() -> None:
    files = [f"{n}.jpg" for n in range(6)]
    records = hand_evaluation().records(files, title="SVM")
    assert {r.name: r.value for r in records if isinstance(r, Metric)} == {
        **hand_evaluation().metrics(),
        **hand_evaluation().recalls(),
    }
    assert [r.name for r in records if isinstance(r, Figure)] == [
        "figures/confusion_matrix.png",
        "figures/reliability.png",
    ]
    tables = {r.name: r for r in records if isinstance(r, Table)}
    assert tables["per_class.json"].rows[1] == ("forest", 0.5, 0.5, 0.5, 2)
    predictions = tables["predictions.csv"]
    assert list(predictions.columns) == [
        *("file", "label", "predicted", "score", "probability"),
        *(f"probability of {name}" for name in NAMES),
    ]
    assert predictions.rows[2] == ("2.jpg", "coast", "forest", 1.0, "0.8", "0.1", "0.8", "0.1")
    with pytest.raises(ValueError):
        hand_evaluation().records(files[:5])


def test_records_without_scores_or_probabilities() -> None:
    bare = evaluate(np.array([0]), np.array([1]), NAMES).records(["a.jpg"])
    (rows,) = [r.rows for r in bare if isinstance(r, Table) and "pred" in r.name]
    assert rows == [("a.jpg", "coast", "forest", "", "", "", "", "")]
    assert "figures/reliability.png" not in {r.name for r in bare if isinstance(r, Figure)}


def test_the_most_confident_mistakes_come_first() -> None:
    # Wrong are the images 2 (0.8), 4 (0.9) and 5 (0.4).
    assert hand_evaluation().mistakes(16).tolist() == [4, 2, 5]
    assert hand_evaluation().mistakes(2).tolist() == [4, 2]
    assert evaluate(LABELS, np.zeros(6, np.int64), NAMES).mistakes(16).tolist() == []
    same = np.full((6, 3), 1 / 3)
    assert evaluate(LABELS, same, NAMES, same).mistakes(16).tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (SHARES[:5], r"6 images and 3 classes .* \(5, 3\)"),
        (SHARES * 2, "sums from 2 to 2"),
        (SHARES * np.nan, "Received: values from nan"),
        (SHARES - [0.5, 0, -0.5], "Received: values from -0.5"),
    ],
)
def test_probabilities_that_are_none(probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(ScenetrackError, match=message):
        evaluate(LABELS, LABELS, NAMES, probabilities)


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
