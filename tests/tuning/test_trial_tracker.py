"""What a trial logs, keeps and tells the pruner of."""

import optuna
import pytest

from scenetrack.records import (
    Artifact,
    Epoch,
    Figure,
    MemoryTracker,
    Metric,
    Model,
    Param,
    Table,
    Tag,
    Text,
    metrics_among,
)
from scenetrack.tuning.trial_state import SAVED_S
from scenetrack.tuning.trial_tracker import TrialTracker


class Trial:
    """Takes reports, and is for stopping from a step on."""

    def __init__(self, stop_at=10**6):
        self.reports, self.attributes, self.stop_at = {}, {}, stop_at

    def report(self, value, step):
        self.reports[step] = value

    def should_prune(self):
        return max(self.reports) >= self.stop_at

    def set_user_attr(self, name, value):
        self.attributes[name] = value


def curve(tracker, values, prefix=""):
    for epoch, value in enumerate(values):
        tracker.log(Epoch(epoch, {"val/accuracy": value, "train/loss": 1 - value}, prefix))


def steps(run):
    """The epochs whose validation accuracy a run has."""
    return [metric.step for metric in metrics_among(run.records) if metric.name == "val/accuracy"]


def test_figures_are_logged_and_files_are_let_go(tmp_path):
    run = MemoryTracker()
    tracker = TrialTracker(run, None, 3)
    file = tmp_path / "classifier.npz"
    file.write_bytes(b"parts")
    kept = [
        Param("hidden", "8"),
        Tag("best_method", "svm"),
        Metric("parameters", 12.0),
        Figure("figures/learning_curves.png", b"png"),
    ]
    others = [
        Figure("figures/samples.png", b"png"),
        Table("table.json", ("a",), [(1,)]),
        Text("summary.txt", "text"),
        Artifact(file),
    ]
    tracker.log(*kept, *others)
    assert run.records == kept
    assert tracker.metrics == {"parameters": 12.0}
    assert tracker.tags == {"best_method": "svm"}


def test_a_method_of_the_stage_gives_metrics_of_its_name():
    run = MemoryTracker()
    tracker = TrialTracker(run, None, 3)
    with tracker.child("svm", {"kernel": "rbf"}) as child:
        child.log(Metric("val/accuracy", 0.5), Tag("encoder", "vlad"))
        with child.child("seed 1") as inner:
            inner.log(Metric("val/accuracy", 0.25))
    assert child.run_id == inner.run_id == run.run_id
    assert run.records == [
        Metric("val/accuracy/svm", 0.5),
        Metric("val/accuracy/svm/seed 1", 0.25),
    ]
    assert run.children == {}
    assert tracker.kernels == {"svm": "rbf"}


def test_epochs_are_logged_together_and_none_is_lost():
    run = MemoryTracker()
    calls = []
    log = run.log
    run.log = lambda *records: (calls.append(len(records)), log(*records))
    tracker = TrialTracker(run, None, 40)
    curve(tracker, [0.5] * 40)
    tracker.flush()
    assert len(calls) < 10
    assert steps(run) == list(range(40))
    tracker.flush()
    assert sum(calls) == 40


@pytest.mark.parametrize("prefix", ["", "patch/", "network/"])
def test_the_pruner_hears_of_the_validation_curve(prefix):
    trial = Trial()
    tracker = TrialTracker(MemoryTracker(), trial, 3)
    curve(tracker, [0.1, 0.2, 0.3], prefix)
    tracker.log(Metric(f"{prefix}val/accuracy", 0.25, 3), Metric(f"{prefix}train/loss", 0.7, 3))
    # After the last epoch comes the kept network's value, which is no epoch; nor is what the stage
    # says of its finished methods.
    tracker.log(Metric("val/accuracy", 0.9), Metric("cv/accuracy", 0.9))
    assert trial.reports == {0: 0.1, 1: 0.2, 2: 0.3}


def test_a_bad_training_is_stopped_with_all_that_it_logged():
    run, trial = MemoryTracker(), Trial(stop_at=3)
    tracker = TrialTracker(run, trial, 10)
    with pytest.raises(optuna.TrialPruned, match="after 4 of 10 epochs"):
        curve(tracker, [0.1] * 10)
    assert steps(run) == [0, 1, 2, 3]
    saved = run.metrics()["time/saved_s"]
    # Four epochs took what six more would have taken, but for 6/4.
    assert trial.attributes[SAVED_S] == pytest.approx(saved, abs=0.01)
    assert saved > 0


def test_after_its_last_epoch_a_training_is_not_stopped():
    trial = Trial(stop_at=2)
    curve(TrialTracker(MemoryTracker(), trial, 3), [0.1, 0.1, 0.1])
    assert trial.reports == {0: 0.1, 1: 0.1, 2: 0.1}


def test_an_early_stop_is_no_further_epoch():
    trial = Trial(stop_at=3)
    tracker = TrialTracker(MemoryTracker(), trial, 9)
    curve(tracker, [0.1, 0.3, 0.2])
    kept = Metric("val/accuracy", 0.3, 3), Metric("train/loss", 0.7, 3)
    tracker.log(*kept, Metric("epochs", 3.0))
    assert trial.reports == {0: 0.1, 1: 0.3, 2: 0.2}
    assert tracker.metrics["val/accuracy"] == 0.3


def test_parts_are_kept_where_they_are_asked_for(tmp_path):
    parts, source = tmp_path / "parts", tmp_path / "source"
    parts.mkdir()
    source.mkdir()
    for name in ("descriptors.onnx", "encoder.npz", "classifier.npz"):
        (source / name).write_text(name)
    run = MemoryTracker()
    tracker = TrialTracker(run, None, 3, parts)
    tracker.log(Model("descriptors", source / "descriptors.onnx", [], []))
    tracker.log(Artifact(source / "encoder.npz"))
    for method in ("linear svm", "rbf svm"):
        with tracker.child(method) as child:
            child.log(Artifact(source / "classifier.npz"), Metric("val/accuracy", 1.0))
    for file in source.iterdir():
        file.unlink()
    found = {str(path.relative_to(parts)) for path in parts.rglob("*") if path.is_file()}
    assert found == {
        "descriptors.onnx",
        "encoder.npz",
        "linear svm/classifier.npz",
        "rbf svm/classifier.npz",
    }
    assert (parts / "rbf svm" / "classifier.npz").read_text() == "classifier.npz"
    assert {type(record) for record in run.records} == {Metric}
