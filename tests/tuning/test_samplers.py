"""What draws the trials of a study: each once on a grid, and the same again from the same seed."""

import optuna
import pytest
from optuna.trial import TrialState

from scenetrack.config import TARGETS, TuneConfig
from scenetrack.errors import ConfigError
from scenetrack.records import Epoch
from scenetrack.tuning.samplers import make_pruner
from scenetrack.tuning.space import search_space
from scenetrack.tuning.trial_state import RETRY_OF, saved_seconds
from scenetrack.tuning.trial_tracker import TrialTracker
from scenetrack.tuning.worker import Worker

SPACE = search_space(
    TARGETS["train_mlp"].config,
    "layers=1:2; width_1=8:16:8; width_2=4:12; dropout=0:0.5; learning_rate=1e-8:1:log; "
    "activation=relu|gelu",
    {
        "image_size": "16",
        "weight_decay": "0",
        "label_smoothing": "0",
        "batch_size": "8",
        "augmentation": "flip",
    },
)
GRID = (1 * 2 + 1 * 2 * 3) * 3 * 3 * 2


@pytest.fixture(autouse=True)
def _silent():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def score(settings):
    """How good settings are: the best has a dropout of 0.3 and a learning rate of 1e-3."""
    return -abs(float(settings["dropout"]) - 0.3) - abs(float(settings["learning_rate"]) - 1e-3)


def study_of(pruner="none", **kwargs):
    return optuna.create_study(direction="maximize", pruner=make_pruner(pruner, 12), **kwargs)


def work(
    study, sampler, trials, run=lambda trial, settings: (score(settings),), space=SPACE, **more
):
    config = TuneConfig(target="train_mlp", sampler=sampler, trials=trials, **more)
    Worker(study, config, space, run, lambda study, trial: None).work()
    return [trial.params for trial in study.trials if trial.state.is_finished()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_the_same_seed_gives_the_same_trials(sampler):
    first, again = (work(study_of(), sampler, 16, seed=3) for _ in range(2))
    assert first == again
    assert len({str(trial) for trial in first}) == 16
    if sampler != "grid":
        assert first != work(study_of(), sampler, 16, seed=4)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(sampler):
    study = study_of()
    assert len(work(study, sampler, 7)) == 7
    assert work(study, sampler, 16) == work(study_of(), sampler, 16)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_a_trial_that_is_interrupted_does_not_change_those_after_it(sampler):
    def interrupted(trial, settings):
        if trial.number == 12:
            raise KeyboardInterrupt
        return (score(settings),)

    study = study_of()
    with pytest.raises(KeyboardInterrupt):
        work(study, sampler, 16, interrupted)
    work(study, sampler, 16)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.user_attrs.get(RETRY_OF) for trial in complete].count(12) == 1
    assert [trial.params for trial in complete] == work(study_of(), sampler, 16)


def test_a_grid_ends_with_its_last_combination():
    small = search_space(TARGETS["train_mlp"].config, "hidden=8|8,4; dropout=0:0.5", SMALL_FIXED)
    drawn = work(study_of(), "grid", 1000, space=small)
    assert drawn == list(small.grid())
    assert len(drawn) == 2 * 3


SMALL_FIXED = {
    "activation": "relu",
    "learning_rate": "0.01",
    "image_size": "16",
    "weight_decay": "0",
    "label_smoothing": "0",
    "batch_size": "8",
    "augmentation": "flip",
}


def test_a_grid_with_conditions_has_no_duplicates():
    drawn = work(study_of(), "grid", 2000, lambda trial, settings: (0.0,))
    assert len({tuple(trial.items()) for trial in drawn}) == len(drawn) == GRID


def test_a_grid_with_hyperband_has_every_combination_too():
    small = search_space(TARGETS["train_mlp"].config, "hidden=8|8,4; dropout=0:0.5", SMALL_FIXED)
    drawn = work(study_of("hyperband"), "grid", 50, space=small)
    assert drawn == list(small.grid())


class Run:
    """A run that keeps what it is told."""

    run_id = "run"

    def __init__(self):
        self.records = []

    def log(self, *records):
        self.records.extend(records)


EPOCHS = 20


def trained(trial, settings):
    """A training whose curve rises to what its learning rate lets it."""
    run = Run()
    tracker = TrialTracker(run, trial, EPOCHS)
    ceiling = 1 + score(settings)
    for epoch in range(EPOCHS):
        value = ceiling * (epoch + 1) / EPOCHS
        tracker.log(Epoch(epoch, {"val/accuracy": value, "train/loss": -value}))
    return (ceiling,)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_bad_training_is_stopped_and_the_best_one_is_not(pruner):
    study = study_of(pruner, study_name="pruned")
    work(study, "random", 40, trained)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert 5 <= len(pruned) < 40
    assert all(len(trial.intermediate_values) < EPOCHS for trial in pruned)
    ceilings = [
        1 - abs(trial.params["dropout"] - 0.3) - abs(trial.params["learning_rate"] - 1e-3)
        for trial in study.trials
    ]
    assert study.best_value == pytest.approx(max(ceilings))
    assert saved_seconds(study.trials) == pytest.approx(
        sum(trial.user_attrs["saved_s"] for trial in pruned)
    )


def test_without_a_pruner_none_is_stopped():
    study = study_of("none")
    work(study, "random", 12, trained)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_impossible_settings_are_told_and_count_as_tried(caplog):
    def refused(trial, settings):
        if trial.number == 1:
            raise ConfigError("pca keeps at most 24 values")
        return (0.5,)

    study = study_of()
    with caplog.at_level("INFO", "scenetrack"):
        work(study, "random", 3, refused)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
    ]
    assert "2 of 3: trial 1 has impossible settings: pca keeps at most 24 values" in caplog.text


def test_a_trial_is_told_in_one_short_line(caplog):
    with caplog.at_level("INFO", "scenetrack"):
        work(study_of(), "random", 2)
    for line in caplog.messages:
        assert len(line) < 130
        assert "\n" not in line


def test_cmaes_has_one_objective():
    from scenetrack.stages.tune.study import space_of

    config = TuneConfig(target="train_mlp", sampler="cmaes", objectives=("accuracy", "parameters"))
    with pytest.raises(ConfigError, match="cmaes has one objective"):
        space_of(config)
