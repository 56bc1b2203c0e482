"""The first trial of a study: the target's own settings."""

from unittest.mock import Mock

import optuna
import pytest

from scenetrack.config import TARGETS, TuneConfig
from scenetrack.config.parsing import build_config
from scenetrack.stages.tune.study import open_study, space_of
from scenetrack.tuning.baseline import baseline_values
from scenetrack.tuning.space import search_space
from scenetrack.tuning.trial_config import trial_config


class Replay:
    """Draws what it was given."""

    def __init__(self, values):
        self.values = values

    def suggest_int(self, name, low, high, *, step, log):
        return self.values[name]

    def suggest_float(self, name, low, high, *, step, log):
        return self.values[name]

    def suggest_categorical(self, name, choices):
        return self.values[name]


@pytest.mark.parametrize("stage", TARGETS)
def test_it_draws_the_defaults(stage):
    space = search_space(TARGETS[stage].config)
    settings = space.draw(Replay(baseline_values(space) | {"kernels": "linear"}))
    drawn = build_config(TARGETS[stage].config, settings, from_mlflow=False)
    expected = TARGETS[stage].config().as_params()
    free = {"kernels"} if stage == "layer_svm" else set()
    for name, value in drawn.as_params().items():
        if name not in free:
            assert value == expected[name], name


def test_what_lies_in_no_range_is_left_to_be_drawn():
    space = search_space(TARGETS["train_mlp"].config, "dropout=0:0.3; layers=2:3; width_2=600:700")
    found = baseline_values(space)
    assert found["layers"] == 2
    assert found["width_1"] == 1024
    assert {"dropout", "width_2", "width_3"} & set(found) == set()


def test_a_step_has_to_be_met():
    space = search_space(TARGETS["patch_bow"].config, "pca=32:96:24; whitening=100:200:20")
    found = baseline_values(space)
    assert found["pca"] == 80
    assert found["whitening"] == 160
    assert "pca" not in baseline_values(search_space(TARGETS["patch_bow"].config, "pca=30:90:20"))


def test_a_trial_leaves_the_test_images_alone():
    space = search_space(TARGETS["handcrafted"].config)
    config = TuneConfig(target="handcrafted", seed=5, data="photos")
    trial = trial_config(config, space, {"pca": "16"})
    assert (trial.test, trial.seed, trial.data, trial.pca) == (False, 5, "photos", 16)
    assert trial_config(config, space, {"pca": "16"}, test=True).test


def test_a_study_cut_short_as_it_begins_has_it_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    config = TuneConfig(target="train_mlp", storage=f"journal:{tmp_path / 'studies.journal'}")
    space = space_of(config)
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "set_user_attr", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_study(config, space)
    for _ in range(2):
        (trial,) = open_study(config, space).get_trials(deepcopy=False)
        assert trial.system_attrs["fixed_params"] == baseline_values(space)
