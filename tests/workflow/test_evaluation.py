"""What the run of a finished method keeps of its test."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from splits import split_of

from scenetrack.data.dataset import SceneDataset
from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.temperature_scaling import fit_temperature, log_loss, softmax
from scenetrack.records import Figure, Metric, Table
from scenetrack.workflow import evaluation as verdicts
from scenetrack.workflow.evaluation import evaluate_on_test, evaluation_records, validation_figures

COLOURS = {"red": (250, 0, 0), "blue": (0, 0, 250)}


@pytest.fixture
def dataset(tmp_path: Path) -> SceneDataset:
    """Forty test images of each of two classes, each in its colour; none to train on."""
    paths = []
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir()
        for index in range(40):
            paths.append(tmp_path / name / f"{index}.png")
            Image.new("RGB", (30, 20), colour).save(paths[-1])
    test = split_of(paths, np.repeat([0, 1], 40).astype(np.int64))
    nothing = split_of([], np.zeros(0, np.int64))
    return SceneDataset("colours", tmp_path, tuple(COLOURS), nothing, test, "0" * 16)


def scores_of(dataset: SceneDataset, wrong: int) -> np.ndarray:
    """Scores under which the last ``wrong`` images are mistakes, the surer the later."""
    scores = np.eye(2)[dataset.test.labels]
    scores[80 - wrong :] = scores[80 - wrong :, ::-1] * np.arange(1, wrong + 1)[:, None]
    return scores


def test_probabilities_are_those_at_the_temperature(dataset: SceneDataset) -> None:
    cold, warm = (evaluate_on_test(dataset, scores_of(dataset, 8), t) for t in (0.5, 2.0))
    assert cold.accuracy == warm.accuracy == 0.9
    assert cold.probabilities is not None
    assert warm.probabilities is not None
    # Scores of 1 and 0 at a temperature of 0.5: e**2 / (e**2 + 1).
    assert cold.probabilities[0] == pytest.approx([0.880797, 0.119203], abs=1e-6)
    assert warm.probabilities[0] == pytest.approx([0.622459, 0.377541], abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_method_that_diverged(dataset: SceneDataset, bad: float) -> None:
    scores = scores_of(dataset, 3)
    scores[5, 1] = bad
    with pytest.raises(ScenetrackError, match="diverged"):
        evaluate_on_test(dataset, scores, 1.0)


@pytest.mark.parametrize(("wrong", "shown"), [(3, 3), (16, 16), (20, 16)])
def test_the_gallery_shows_the_most_confident_mistakes(
    dataset: SceneDataset, wrong: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[np.ndarray, list[tuple[str, str, float]], str]] = []
    draw = verdicts.draw_mistakes

    def keep(images: np.ndarray, captions: list[tuple[str, str, float]], title: str) -> Figure:
        asked.append((images, captions, title))
        return draw(images, captions, title)

    monkeypatch.setattr(verdicts, "draw_mistakes", keep)
    records = evaluation_records(
        evaluate_on_test(dataset, scores_of(dataset, wrong), 1.0), dataset, "SVM"
    )
    (figure,) = [r for r in records if isinstance(r, Figure) and "mistakes" in r.name]
    ((images, captions, title),) = asked
    assert (len(images), len(captions), title) == (shown, shown, "SVM")
    assert {caption[:2] for caption in captions} == {("blue", "red")}
    assert captions[0][2] == pytest.approx(1 / (1 + np.exp(-float(wrong))))
    assert [c[2] for c in captions] == sorted((c[2] for c in captions), reverse=True)
    picture = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert (picture == COLOURS["blue"]).all(axis=2).mean() > 0.1
    assert not (picture == COLOURS["red"]).all(axis=2).any()


def test_without_mistakes_there_is_no_gallery(dataset: SceneDataset) -> None:
    records = evaluation_records(
        evaluate_on_test(dataset, scores_of(dataset, 0), 1.0), dataset, "SVM"
    )
    names = {r.name for r in records if isinstance(r, Figure)}
    assert names == {"figures/confusion_matrix.png", "figures/reliability.png"}
    assert {r.name for r in records if isinstance(r, Metric)} >= {"test/ece", "test/recall/red"}
    (table,) = [r for r in records if isinstance(r, Table) and r.name == "predictions.csv"]
    assert [row[0] for row in table.rows][:2] == ["red/0.png", "red/1.png"]


def test_images_that_are_gone_cost_the_picture_and_not_the_result(
    dataset: SceneDataset, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = evaluate_on_test(dataset, scores_of(dataset, 3), 1.0)
    dataset.test.paths[-1].unlink()
    records = evaluation_records(evaluation, dataset, "SVM")
    assert "figures/mistakes.png" not in {r.name for r in records if isinstance(r, Figure)}
    assert "no picture of the mistakes" in caplog.text
    assert evaluation.metrics().items() <= {
        (r.name, r.value) for r in records if isinstance(r, Metric)
    }


def test_held_out_images_say_accuracy_loss_and_temperature() -> None:
    scores = np.array([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [4.0, 0.0]])
    found = validation_figures(scores, np.array([0, 1, 0, 1]))
    assert found["val/accuracy"] == 0.75
    # One of four is wrong: the most likely confidence is about three quarters, not 98%.
    confidence = 1 / (1 + np.exp(-4 / found["temperature"]))
    assert 0.6 < confidence < 0.76
    # At a temperature that the images themselves chose the loss would be smaller.
    loss = -(3 * np.log(confidence) + np.log(1 - confidence)) / 4
    assert found["val/log_loss"] > loss
    alone = -np.log(1 / (1 + np.exp(-4.0)))
    assert validation_figures(scores[:1], np.array([0]))["val/log_loss"] == pytest.approx(alone)


def test_the_log_loss_of_each_part_is_at_the_temperature_of_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    scores = 3 * np.eye(4)[labels] + rng.standard_normal((40, 4)) * 3
    parts = np.empty(40, np.int64)
    for label in range(4):
        members = np.flatnonzero(labels == label)
        parts[members] = np.arange(len(members)) % 5
    losses = [
        log_loss(
            softmax(
                scores[parts == part], fit_temperature(scores[parts != part], labels[parts != part])
            ),
            labels[parts == part],
        )
        for part in range(5)
    ]
    # Ten images of each class: each of the five parts has eight, two of each.
    assert validation_figures(scores, labels)["val/log_loss"] == pytest.approx(np.mean(losses))
