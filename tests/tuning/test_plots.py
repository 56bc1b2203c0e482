"""Pictures of studies: what is drawn of which study, and the page that needs nothing else."""

from __future__ import annotations

import io
import logging
import random
from html.parser import HTMLParser

import optuna
import pytest
from PIL import Image

from scenetrack.config import PatchBowConfig
from scenetrack.tuning.html import study_page
from scenetrack.tuning.plots import (
    importances,
    study_figures,
    unmet_requirements,
    varied_parameters,
)
from scenetrack.tuning.space import search_space

optuna.logging.set_verbosity(optuna.logging.WARNING)
ALL = {"history", "importances", "parallel_coordinates", "slice", "intermediate_values"}
OBJECTIVES = ("accuracy", "parameters", "latency")


def patch_study(trials: int, *, objectives: int = 1, curves: bool = True) -> optuna.Study:
    """A study of patch_bow's own space, with its conditional settings, drawn at random."""
    rng = random.Random(0)
    study = optuna.create_study(
        study_name="<b>patches</b>",
        directions=["maximize", "minimize", "minimize"][:objectives],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    space = search_space(PatchBowConfig)

    def run(trial: optuna.Trial) -> tuple[float, ...]:
        space.draw(trial)
        accuracy = 0.7 + 0.2 * trial.params["dropout"] + rng.gauss(0, 0.01)
        for epoch in range(6 if curves and objectives == 1 else 0):
            trial.report(accuracy - 0.3 * 0.5**epoch, epoch)
            if epoch == 3 and accuracy < 0.72:
                raise optuna.TrialPruned
        return (accuracy, float(trial.params["width_1"]), rng.random())[:objectives]

    study.optimize(run, n_trials=trials)
    return study


def scored(*values: float, setting: bool = True) -> optuna.Study:
    """Trials with these accuracies, of one setting or of none that varies."""
    study = optuna.create_study(direction="maximize")
    kind = optuna.distributions.FloatDistribution(0.0, 1.0)
    for place, value in enumerate(values):
        drawn = {"dropout": place / 10 if setting else 0.5}
        study.add_trial(
            optuna.trial.create_trial(params=drawn, distributions={"dropout": kind}, value=value)
        )
    return study


def drawn(study: optuna.Study, objectives: tuple[str, ...] = ("accuracy",)) -> set[str]:
    """Names of the pictures that are drawn, each a PNG that opens."""
    figures = study_figures(study, objectives)
    for figure in figures:
        with Image.open(io.BytesIO(figure.png)) as image:
            assert min(image.size) > 200
    return {figure.name.removeprefix("figures/study_").removesuffix(".png") for figure in figures}


def test_a_study_with_conditional_settings_has_every_picture() -> None:
    assert drawn(patch_study(30)) == ALL


@pytest.mark.parametrize("objectives", [2, 3])
def test_several_objectives_have_a_front_and_no_curves(objectives: int) -> None:
    study = patch_study(12, objectives=objectives)
    assert drawn(study, OBJECTIVES[:objectives]) == ALL - {"intermediate_values"} | {"pareto_front"}


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (scored(), set()),
        (scored(0.5), set()),
        (scored(0.5, 0.6), {"history", "slice", "parallel_coordinates"}),
        (scored(0.5, 0.5, 0.5, 0.5, 0.5), {"history", "slice"}),
        (scored(0.5, 0.6, setting=False), {"history"}),
    ],
    ids=["none", "one", "two", "equal", "nothing varied"],
)
def test_too_few_trials_leave_pictures_out_and_say_so(
    study: optuna.Study, expected: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "scenetrack"):
        assert drawn(study) == expected
    assert {message.split()[2] for message in caplog.messages} == ALL - expected


def test_a_study_that_pruned_everything_has_only_its_curves() -> None:
    study = optuna.create_study(direction="maximize")
    for _ in range(3):
        trial = study.ask()
        trial.suggest_float("dropout", 0, 1)
        trial.report(0.1, 0)
        trial.report(0.2, 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert drawn(study) == {"intermediate_values"}


def test_parameters_are_those_that_varied_in_the_order_of_the_space() -> None:
    kinds = {name: optuna.distributions.IntDistribution(0, 9) for name in "abc"}
    draws: list[dict[str, int]] = [{"b": 1, "a": 2}, {"b": 2, "a": 2, "c": 1}, {"b": 1, "c": 3}]
    trials = [
        optuna.trial.create_trial(
            params=draw, distributions={name: kinds[name] for name in draw}, value=0.0
        )
        for draw in draws
    ]
    assert varied_parameters(trials) == ["b", "c"]


def test_importances_find_the_setting_that_makes_the_accuracy_high() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(
        lambda trial: trial.suggest_float("matters", 0, 1) + 0 * trial.suggest_float("not", 0, 1),
        n_trials=40,
    )
    found = importances(study)
    assert next(iter(found)) == "matters"
    assert found["matters"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("h1", "h2"):
            self.headings.append(data)
        if self._inside == "script":
            self.scripts.append(data)


def test_the_page_has_plotly_once_every_picture_and_fetches_nothing() -> None:
    study = patch_study(30)
    text = study_page(study, ("accuracy",), study.best_trial)
    page = Page()
    page.feed(text.text)
    assert text.name == "study.html"
    assert page.headings[:2] == [
        "Study <b>patches</b>",
        f"Best trial: {study.best_trial.number}",
    ]
    assert len(page.headings) == 2 + len(ALL)
    assert page.fetched == []
    assert sum(len(script) > 10**6 for script in page.scripts) == 1
    assert sum("Plotly.newPlot(" in script[-(10**6) :] for script in page.scripts[1:]) == len(ALL)
    assert f"{study.best_value:.2%}" in text.text


def test_the_page_of_one_trial_shows_it_without_pictures() -> None:
    study = scored(0.625)
    page = Page()
    page.feed(study_page(study, ("accuracy",), study.best_trial).text)
    assert len(page.headings) == 2
    assert set(unmet_requirements(study)) == ALL


def test_the_page_of_several_objectives_shows_all_values_of_the_best() -> None:
    study = patch_study(8, objectives=2)
    best = max(study.get_trials(), key=lambda trial: trial.values[0])
    text = study_page(study, OBJECTIVES[:2], best).text
    assert f"<td>{best.values[0]:.2%}</td>" in text
    assert f"<td>{best.values[1]:,.4g}</td>" in text
    assert "<h2>Pareto front</h2>" in text
