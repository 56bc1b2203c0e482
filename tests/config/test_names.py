"""Names are refused before any work is done, by the rules of the stores."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_experiment_name, _validate_model_name

from scenetrack.config import TrainMlpConfig, TuneConfig
from scenetrack.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("x" * 600, r"at most 500 characters. Received: 'x{60}\\u2026 \(600 characters\)'"),
        ("a\nb", "no control characters"),
        ("a\x1b[31m", "no control characters"),
        ("caf\udce9", "no bytes that are not UTF-8"),
    ],
)
def test_experiments(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"experiment .*{says}"):
        TrainMlpConfig(experiment=name)


@pytest.mark.parametrize("name", ["a/b", "a:b", "bad/na:me", "..", "x" * 257])
def test_registered_models(name: str) -> None:
    with pytest.raises(ConfigError, match="register must"):
        TuneConfig(target="train_mlp", register=name)


def test_studies() -> None:
    with pytest.raises(ConfigError, match="study must have at most 512 characters"):
        TuneConfig(target="train_mlp", study="x" * 513)
    assert TuneConfig(target="train_mlp", study="x" * 512).study


@pytest.mark.parametrize("name", ["scenes", "a b", "é", "scenes.v2", "a%b", "quote's"])
def test_what_is_accepted_is_accepted_by_mlflow(name: str) -> None:
    TuneConfig(target="train_mlp", register=name, experiment=name)
    _validate_model_name(name)
    _validate_experiment_name(name)


@pytest.mark.parametrize("name", ["a/b", "a:b", ".."])
def test_what_mlflow_refuses_is_refused(name: str) -> None:
    with pytest.raises(MlflowException):
        _validate_model_name(name)
    with pytest.raises(ConfigError):
        TuneConfig(target="train_mlp", register=name)
