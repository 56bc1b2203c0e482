"""``scenetrack tune`` on a tiny folder: objectives, the refit and its registration."""

from __future__ import annotations

import pytest
from mlflow import entities
from workplace import CLASSES, PROJECT, Workplace, finished

from scenetrack import cli

SPACE = "layers=1:2; width_1=8:16; width_2=4:8; learning_rate=1e-4:1e-2:log"
SMALL = ["--image-size", "16", "--batch-size", "8", "--epochs", "6", "--space", SPACE]
STUDY = ["--study", "small", "--objectives", "accuracy,parameters,latency"]


def tune(place: Workplace, experiment: str, *words: str, code: int = 0) -> tuple[str, str]:
    where = ["--data", str(place.data), "--experiment", experiment]
    return finished(place.start("scenetrack", "tune", *where, *words), code)


@pytest.fixture(scope="module")
def study(workplace: Workplace, twins: object) -> tuple[str, str]:
    """What a study of three objectives says."""
    words = ["--target", "train_mlp", "--trials", "3", *SMALL, *STUDY, "--register", "stripes"]
    return tune(workplace, "studied", *words)


def _runs(place: Workplace) -> tuple[entities.Run, dict[str, entities.Run]]:
    (run,) = place.runs("studied")
    return run, place.children(run)


def test_each_trial_has_its_objectives(workplace: Workplace, study: tuple[str, str]) -> None:
    run, children = _runs(workplace)
    trials = {name: one for name, one in children.items() if name.startswith("trial")}
    assert set(trials) == {"trial 0", "trial 1", "trial 2"}
    for one in trials.values():
        metrics = one.data.metrics
        assert metrics["objective/accuracy"] == pytest.approx(metrics["val/accuracy"])
        assert metrics["objective/parameters"] == metrics["parameters"] > 768 * 8
        assert 0 < metrics["objective/latency"] < 1000
        assert not any(name.startswith("test/") for name in metrics)
        assert one.data.params["epochs"] == "6"
        assert one.data.params["test"] == "false"
    best = max(one.data.metrics["val/accuracy"] for one in trials.values())
    assert run.data.metrics["objective/accuracy"] == pytest.approx(best)
    assert run.info.status == "FINISHED"


def test_the_refit_has_the_temperature_of_its_trial(
    workplace: Workplace, study: tuple[str, str]
) -> None:
    run, children = _runs(workplace)
    best = children[f"trial {run.data.tags['best_trial']}"].data
    refit = children[f"best: trial {run.data.tags['best_trial']}"].data
    assert refit.params["validation"] == "0.0"
    learnt = best.metrics["temperature"]
    assert learnt != 1
    assert refit.params["temperatures"] == f"MLP={learnt:.6g}"
    assert refit.metrics["temperature"] == pytest.approx(learnt, rel=1e-5)


def test_what_is_said_is_short(study: tuple[str, str]) -> None:
    out, err = study
    assert "nothing is pruned" in err
    assert "retracing" not in err
    # Once for the trials, and once for the refit, which looks at the test images.
    assert err.count("photos: 3 classes, 27 training and 0 test images") == 1
    listed = [line for line in err.splitlines() if " of 3: trial " in line]
    assert len(listed) == 3
    assert max(map(len, listed)) < 140
    assert "inside train, the trials that no other beats in everything:" in out
    assert "parameters  ms an image  settings" in out
    (flags,) = (line for line in out.splitlines() if "--hidden" in line)
    assert flags.startswith("trial ")
    assert "--learning-rate 0.0" in flags
    # All that it takes to train that one again.
    assert "--epochs 6 " in f"{flags} "
    assert "--validation 0.25" in flags


def test_the_champion_predicts(workplace: Workplace, study: tuple[str, str]) -> None:
    out, _ = study
    assert "registered as models:/stripes@champion, version 1" in out
    image = str(next((workplace.data / "test" / "bars").iterdir()))
    reported, _ = finished(
        workplace.start("scenetrack", "predict", "models:/stripes@champion", image)
    )
    assert reported.splitlines()[1].split(",")[1] in CLASSES


def test_a_concluded_study_is_not_refitted_again(
    workplace: Workplace, study: tuple[str, str]
) -> None:
    _, before = _runs(workplace)
    words = ["--target", "train_mlp", "--trials", "3", *SMALL, *STUDY]
    out, err = tune(workplace, "studied", *words, "--register", "others")
    assert "was refitted before" in err
    assert "registered as models:/others@champion, version 1" in out
    out, _ = tune(workplace, "studied", *words, "--register", "stripes")
    assert "registered as models:/stripes@champion, version 1" in out
    assert set(_runs(workplace)[1]) == set(before)
    versions = workplace.client.search_model_versions("name = 'stripes'")
    assert [one.version for one in versions] in (["1"], [1])


def test_a_bad_training_is_stopped(workplace: Workplace, twins: object) -> None:
    space = "learning_rate=1e-8:1:log; dropout=0; hidden=16; activation=relu; image_size=16"
    words = ["--target", "train_mlp", "--trials", "16", "--sampler", "random", "--study", "pruned"]
    given = ["--epochs", "12", "--batch-size", "8", "--space", space, "--refit", "false"]
    out, err = tune(workplace, "pruned", *words, *given)
    (run,) = workplace.runs("pruned")
    children = workplace.children(run).values()
    pruned = [one for one in children if one.data.tags["status"] == "pruned"]
    assert pruned
    assert {one.info.status for one in children} == {"FINISHED"}
    for one in pruned:
        assert len(workplace.curve(one, "train/loss")) < 12
        assert one.data.metrics["time/saved_s"] > 0
    assert run.data.metrics["trials/pruned"] == len(pruned)
    assert run.data.metrics["time/saved_s"] == pytest.approx(
        sum(one.data.metrics["time/saved_s"] for one in pruned), abs=0.2
    )
    assert f"{16 - len(pruned)} complete, {len(pruned)} stopped early (saving" in out
    assert err.count("stopped early") == len(pruned)


def test_latency_of_encoded_descriptors(workplace: Workplace, twins: object) -> None:
    words = ["--target", "handcrafted", "--trials", "2", "--study", "sift", "--refit", "false"]
    small = ["--image-size", "48", "--codebook-size", "8", "--pca", "8", "--folds", "2"]
    space = "encoder=vlad; bin_sizes=4|4,6; step=8; pyramid=1x1"
    tune(workplace, "sift", *words, *small, "--space", space, "--objectives", "accuracy,latency")
    (run,) = workplace.runs("sift")
    for one in workplace.children(run).values():
        assert 0 < one.data.metrics["objective/latency"] < 1000
        assert one.data.params["encoder"] == "vlad"


@pytest.mark.parametrize(("trials", "warned"), [("1", True), ("2", False)])
def test_a_grid_larger_than_the_study(workplace: Workplace, trials: str, warned: bool) -> None:
    words = ["--target", "handcrafted", "--sampler", "grid", "--study", f"grid {trials}"]
    small = ["--image-size", "48", "--codebook-size", "8", "--pca", "8", "--folds", "2"]
    space = "encoder=vlad; bin_sizes=4|4,6; step=8; pyramid=1x1; smoothing=1; position=0"
    fixed = ["--space", space, "--refit", "false", "--colour", "grey"]
    out, err = tune(workplace, "gridded", "--trials", trials, *words, *small, *fixed)
    assert ("the grid has more than 1 combinations" in err) == warned
    assert f"{trials} complete" in out
    assert "TensorFlow" not in err
    assert "oneDNN" not in err


def test_the_space_is_shown_without_a_run(workplace: Workplace, twins: object) -> None:
    out, _ = tune(workplace, "shown", "--target", "patch_bow", "--show-space", "--preset", "best")
    lines = out.splitlines()
    assert lines[0].split() == ["dimension", "values", "sets", "only", "when"]
    start = lines[0].index("values")
    assert all(line[start - 1] == " " != line[start] for line in lines[2:-1])
    assert lines[-1] == "stays: preset=best; validation=0.25"
    assert workplace.runs("shown") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "target must be one of: train_mlp"),
        (["--target", "train_mlp", "--epohcs", "5"], "train_mlp has no parameter 'epohcs'"),
        (["--target", "train_mlp", "--epochs"], "flags of the target need a value each"),
        (["--target", "train_mlp", "--space", "dropout=0:2"], "dropout must be at most 0.95"),
        (["--target", "handcrafted", "--objectives", "accuracy,parameters"], "has no network"),
        (["--target", "train_mlp", "--objectives", "latency"], "objectives begins with accuracy"),
    ],
)
def test_refusals(
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workplace.uri)
    where = ["--data", str(workplace.data), "--experiment", "refused studies"]
    assert cli.main(["tune", *where, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert workplace.runs("refused studies") == []


def test_mlflow_run_passes_settings_of_the_target(workplace: Workplace, twins: object) -> None:
    given = {
        "target": "train_mlp",
        "data": str(workplace.data),
        "trials": "2",
        "epochs": "2",
        "image_size": "16",
        "space": "width_1=8:16; layers=1",
        "preset": "course",
        "storage": f"journal:{workplace.root / 'project.journal'}",
    }
    words = [word for name, value in given.items() for word in ("-P", f"{name}={value}")]
    place = ["-e", "tune", "--env-manager", "local", "--experiment-name", "tuned project"]
    finished(workplace.start("mlflow", "run", str(PROJECT), *place, *words))
    (run,) = workplace.runs("tuned project")
    children = workplace.children(run)
    assert run.info.status == "FINISHED"
    assert len(children) == 3
    for one in children.values():
        # Of the preset what is neither given nor drawn.
        params = one.data.params
        assert (params["epochs"], params["image_size"], params["optimizer"]) == ("2", "16", "sgd")
        assert 8 <= int(params["hidden"]) <= 16
