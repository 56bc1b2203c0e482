"""CMA-ES from the trials of a study, against the library asked directly."""

import numpy as np
import optuna
import pytest
from cmaes import CMA
from optuna.distributions import FloatDistribution, IntDistribution

from scenetrack.tuning.cmaes import CmaEsSampler, _from_unit, _to_unit
from scenetrack.tuning.per_trial_sampler import PerTrialSampler

BEST = {"x": 0.8, "y": -1.5, "z": 0.25}


@pytest.fixture(autouse=True)
def _silent():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def sphere(trial):
    x = trial.suggest_float("x", -2, 2)
    y = trial.suggest_float("y", -2, 2)
    z = trial.suggest_float("z", -2, 2)
    return (x - BEST["x"]) ** 2 + (y - BEST["y"]) ** 2 + (z - BEST["z"]) ** 2


def searched(objective, trials, direction="minimize"):
    study = optuna.create_study(direction=direction, sampler=PerTrialSampler(CmaEsSampler))
    study.optimize(objective, n_trials=trials)
    return study


def test_it_minimises_a_sphere():
    study = searched(sphere, 150)
    assert study.best_value < 1e-2
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    random.optimize(sphere, n_trials=150)
    assert study.best_value < random.best_value / 3


def test_it_maximises_the_same():
    up = searched(lambda trial: -sphere(trial), 40, "maximize")
    down = searched(sphere, 40)
    assert [trial.params for trial in up.trials] == [trial.params for trial in down.trials]


def test_it_draws_what_the_library_draws():
    study = searched(sphere, 30)
    seed, names = 30, ["x", "y", "z"]
    direct = CMA(mean=np.full(3, 0.5), sigma=1 / 6, bounds=np.tile([0.0, 1.0], (3, 1)), seed=seed)
    size = direct.population_size
    points = [
        (np.array([(trial.params[n] + 2) / 4 for n in names]), trial.value)
        for trial in study.trials
    ]
    for start in range(0, 30 // size * size, size):
        direct.tell(points[start : start + size])
    expected = direct.ask() * 4 - 2
    study.optimize(sphere, n_trials=1)
    found = [study.trials[-1].params[name] for name in names]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_texts_and_what_not_every_trial_has_are_drawn_at_random():
    def mixed(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        if kind == "a":
            trial.suggest_int("only_a", 1, 9)
        trial.suggest_int("same", 3, 3)
        return sphere(trial)

    study = searched(mixed, 40)
    assert {trial.params["kind"] for trial in study.trials} == {"a", "b"}
    assert {trial.params["same"] for trial in study.trials} == {3}
    assert all(
        ("only_a" in trial.params) == (trial.params["kind"] == "a") for trial in study.trials
    )


def test_one_number_alone_has_no_covariance():
    study = searched(lambda trial: trial.suggest_float("x", 0, 1), 12)
    assert len({trial.params["x"] for trial in study.trials}) == 12


@pytest.mark.parametrize(
    ("kind", "share", "value"),
    [
        (FloatDistribution(0, 4), 0.25, 1.0),
        (FloatDistribution(1e-4, 1e-2, log=True), 0.5, 1e-3),
        (FloatDistribution(0, 1, step=0.25), 0.6, 0.5),
        (IntDistribution(0, 10), 0.72, 7),
        (IntDistribution(1, 100, log=True), 0.5, 10),
        (IntDistribution(6, 12, step=2), 0.4, 8),
        (IntDistribution(0, 10), -0.3, 0),
        (IntDistribution(0, 10), 1.7, 10),
    ],
)
def test_a_share_of_a_range(kind, share, value):
    found = _from_unit(kind, share)
    assert found == pytest.approx(value)
    assert isinstance(found, int) == isinstance(kind, IntDistribution)
    assert kind._contains(kind.to_internal_repr(found))
    assert _from_unit(kind, _to_unit(kind, found)) == pytest.approx(found)
