"""Studies that somebody else began or wrote to: refused in one line, before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from scenetrack import cli
from scenetrack.config import TuneConfig
from scenetrack.errors import InputError
from scenetrack.stages.tune.study import BEGUN_WITH, open_study, space_of
from scenetrack.stages.tune.study_check import check_study

OWNER = {"host": "here", "pid": "12", "process": "pid:[1] 2"}
WRITTEN = {"settings": '{"epochs": "3"}', "run": "abc", "owner": OWNER, "method": "MLP"}
REFITTED = {
    "trial": 0,
    "run": "abc",
    "method": "MLP",
    "figures": {"test/accuracy": 0.5, "test/accuracy_low": 0.4, "test/accuracy_high": 0.6},
    "registered": {"scenes": "1"},
}


def study_with(state: TrialState = TrialState.COMPLETE, **entries: Any) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    value = 0.5 if state == TrialState.COMPLETE else None
    study.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=entries))
    return study


def test_what_is_written_passes() -> None:
    study = study_with(**WRITTEN, kernel="chi2", saved_s=1.5, retry_of=3, failure="", other=[1])
    study.set_user_attr("refit", REFITTED)
    check_study(study, ["maximize"])
    for state in (TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING):
        check_study(study_with(state), ["maximize"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", 3),
        ("settings", "no json"),
        ("settings", "[" * 100_000),
        ("settings", '["epochs"]'),
        ("settings", '{"epochs": 3}'),
        ("settings", None),
        ("run", 3),
        ("run", None),
        ("owner", "me"),
        ("owner", {}),
        ("owner", {**OWNER, "pid": "x"}),
        ("owner", {**OWNER, "pid": "9" * 30}),
        ("owner", {**OWNER, "host": 3}),
        ("method", ["MLP"]),
        ("kernel", 1),
        ("saved_s", "1"),
        ("saved_s", float("nan")),
        ("retry_of", "1"),
        ("failure", {}),
    ],
)
def test_entries_that_cannot_be(name: str, value: object) -> None:
    entries = {**WRITTEN, name: value} if value is not None else WRITTEN.copy()
    if value is None:
        del entries[name]
    with pytest.raises(InputError, match=f"the entry {name} of trial 0") as caught:
        check_study(study_with(**entries), ["maximize"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"trial": "0"}, {"run": 3}, {"figures": {}}, {"registered": []}, None]
)
def test_a_refit_that_cannot_be(change: dict[str, Any] | None) -> None:
    study = study_with(**WRITTEN)
    study.set_user_attr("refit", [1] if change is None else {**REFITTED, **change})
    with pytest.raises(InputError, match="its entry refit"):
        check_study(study, ["maximize"])


@pytest.mark.parametrize(
    "directions", [["maximize", "minimize", "maximize"], ["minimize"], ["maximize", "minimize"]]
)
def test_other_objectives(
    directions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"journal:{tmp_path / 'studies.journal'}"
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(address.removeprefix("journal:"))
    )
    optuna.create_study(study_name="theirs", storage=storage, directions=directions)
    words = ["--target", "handcrafted", "--study", "theirs", "--storage", address]
    assert cli.main(["tune", *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a study whose objectives are to maximize is required")
    assert f"'theirs' has {', '.join(directions)}" in line


@pytest.mark.parametrize("begun", ["x", 3, ["target"]])
def test_settings_of_another_kind(begun: object, tmp_path: Path) -> None:
    config = TuneConfig(target="handcrafted", storage=f"journal:{tmp_path / 'studies.journal'}")
    open_study(config, space_of(config)).set_user_attr(BEGUN_WITH, begun)
    with pytest.raises(InputError, match="was begun with other target and images and"):
        open_study(config, space_of(config))
