"""A study is what it was begun with: images, settings, program."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image

from scenetrack.config import TuneConfig
from scenetrack.errors import DataError, InputError
from scenetrack.stages.tune.context import BEGUN_WITH, IMAGES, StudyContext
from scenetrack.stages.tune.run_trial import _check_images
from scenetrack.stages.tune.study import open_study, space_of
from scenetrack.tuning.storage import open_storage


def save_class(folder: Path, name: str, seed: int) -> None:
    (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(4):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate(("coast", "forest", "street")):
        save_class(tmp_path / "photos", name, seed)
    return TuneConfig(target="train_mlp", data="photos", storage="sqlite:///studies.db", trials=2)


def begin(config: TuneConfig) -> optuna.Study:
    return open_study(config, space_of(config))


def test_a_study_does_not_go_on_with_other_images(config: TuneConfig) -> None:
    begin(config)
    assert begin(config).user_attrs[BEGUN_WITH][IMAGES]
    for path in sorted(Path("photos/street").iterdir()):
        path.unlink()
    Path("photos/street").rmdir()
    with pytest.raises(InputError, match=r"begun with other images: go on with the same, or"):
        begin(config)


def test_two_folders_of_one_name_are_not_one_study(
    config: TuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(config)
    for seed, name in enumerate(("coast", "forest", "street"), start=7):
        save_class(tmp_path / "other" / "photos", name, seed)
    monkeypatch.chdir(tmp_path / "other")
    (tmp_path / "other" / "studies.db").symlink_to(tmp_path / "studies.db")
    with pytest.raises(InputError, match="begun with other images"):
        begin(config)


def test_a_study_goes_on_where_its_images_were_moved(config: TuneConfig) -> None:
    begin(config)
    os.rename("photos", "moved")
    Path("photos").symlink_to("moved")
    begin(config)


def test_a_trial_on_changed_images_does_not_count(config: TuneConfig) -> None:
    study = begin(config)
    context = StudyContext(study, config, space_of(config), "", lambda name: lambda *_: None)
    _check_images(context, study.user_attrs[BEGUN_WITH][IMAGES])
    with pytest.raises(DataError, match="the images that the study began with are required"):
        _check_images(context, "f" * 16)


@pytest.mark.parametrize(
    ("directions", "trials", "says"),
    [
        (["minimize"], 0, "whose objectives are to maximize is required"),
        (["maximize"] * 3, 0, "has maximize, maximize, maximize"),
        (["maximize"], 1, "as scenetrack writes it is required, but the entry settings of trial 0"),
    ],
)
def test_a_study_of_another_program_is_refused(
    config: TuneConfig, directions: list[str], trials: int, says: str
) -> None:
    study = optuna.create_study(
        study_name="train_mlp photos",
        storage=open_storage(config.storage, lambda *_: None),
        directions=directions,
    )
    for _ in range(trials):
        study.add_trial(optuna.trial.create_trial(values=[0.5] * len(directions)))
    with pytest.raises(InputError, match=says):
        begin(config)


def test_an_empty_study_of_another_program_is_begun(config: TuneConfig) -> None:
    storage = open_storage(config.storage, lambda *_: None)
    optuna.create_study(study_name="train_mlp photos", storage=storage, directions=["maximize"])
    assert begin(config).user_attrs[BEGUN_WITH]["target"] == "train_mlp"


def test_a_study_of_an_older_version_gets_the_digest_of_its_images(config: TuneConfig) -> None:
    study = begin(config)
    old = dict(study.user_attrs[BEGUN_WITH])
    digest = old.pop(IMAGES)
    study.set_user_attr(BEGUN_WITH, {**old, "data": "photos"})
    assert begin(config).user_attrs[BEGUN_WITH][IMAGES] == digest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fixed": "validation=0"}, "a trial needs images to be judged by"),
        (
            {"target": "layer_svm", "fixed": "model=abc", "objectives": ("accuracy", "parameters")},
            "the objective parameters needs a network that each trial trains",
        ),
    ],
)
def test_what_no_trial_could_do_is_refused_first(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        space_of(TuneConfig(**{"target": "train_mlp", **settings}))
