"""A parameter has one name and one default: in the config, the MLproject file and the command."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from scenetrack import cli
from scenetrack.cli import mlproject
from scenetrack.config import ENTRY_POINTS, EntryPointConfig, field_types, format_value
from scenetrack.config.parsing import parse_value

ROOT = Path(__file__).parents[2]
stages = pytest.mark.parametrize(
    "stage", [entry.config for entry in ENTRY_POINTS.values()], ids=list(ENTRY_POINTS)
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def command_of(stage: type[EntryPointConfig]) -> click.Command:
    command = cli.command_line().commands[stage.stage]
    assert isinstance(command, click.Command)
    return command


def test_the_file_is_what_the_configs_say() -> None:
    written = (ROOT / "MLproject").read_text(encoding="utf-8")
    assert written == mlproject.render(), "run: python -m scenetrack.cli.mlproject > MLproject"


def test_entry_points_are_the_stages_and_commands(project: dict[str, Any]) -> None:
    names = list(ENTRY_POINTS)
    assert list(project["entry_points"]) == names
    assert list(cli.command_line().commands) == [*names, "data", "cache", "bench", "ui"]


@stages
def test_parameters_and_defaults_in_the_file(
    project: dict[str, Any], stage: type[EntryPointConfig]
) -> None:
    parameters = project["entry_points"][stage.stage]["parameters"]
    fields = dataclasses.fields(stage)
    assert list(parameters) == [item.name for item in fields]
    types = field_types(stage)
    for item in fields:
        declared = parameters[item.name]
        number = types[item.name] in (int, float)
        assert declared["type"] == ("float" if number else "string")
        # mlflow writes str(default) into the command line.
        text = str(declared["default"])
        if text or types[item.name] is str:
            assert parse_value(item.name, text, types[item.name]) == item.default


@stages
def test_the_file_hands_every_parameter_to_the_command(
    project: dict[str, Any], stage: type[EntryPointConfig]
) -> None:
    words = project["entry_points"][stage.stage]["command"].split()
    assert words[:4] == ["python", "-m", "scenetrack", stage.stage]
    handed = {}
    rest = iter(words[4:])
    for word in rest:
        name = word.strip("{}") if word.startswith("{") else word[2:].replace("-", "_")
        handed[name] = word if word.startswith("{") else next(rest)
    assert handed == {item.name: f"{{{item.name}}}" for item in dataclasses.fields(stage)}


@stages
def test_parameters_and_help_of_the_command(stage: type[EntryPointConfig]) -> None:
    params = {param.name: param for param in command_of(stage).params}
    fields = {item.name: item for item in dataclasses.fields(stage)}
    assert set(params) - {"verbose", "debug"} == set(fields)
    for name, item in fields.items():
        param = params[name]
        # A default of click's own would be a second place where it is written.
        assert not isinstance(param.default, str)
        if isinstance(param, click.Argument):
            continue
        assert isinstance(param, click.Option)
        short = [item.metadata["short"]] if item.metadata["short"] else []
        assert param.opts == [*short, "--" + name.replace("_", "-")]
        shown = param.help or ""
        assert shown.startswith(item.metadata["help"])
        default = format_value(item.default)
        assert not default or f"default: {default}" in shown


@stages
def test_fields_are_described_and_of_a_known_type(stage: type[EntryPointConfig]) -> None:
    known = (int, float, bool, str, tuple[int, ...], tuple[float, ...], tuple[str, ...])
    assert set(field_types(stage).values()) <= set(known)
    for item in dataclasses.fields(stage):
        assert re.fullmatch(r"[A-Z].*\.", item.metadata["help"]), item.name


@stages
def test_presets_change_parameters_that_exist_and_are_named_in_the_help(
    stage: type[EntryPointConfig],
) -> None:
    fields = {item.name: item for item in dataclasses.fields(stage)}
    for name, values in stage.presets.items():
        assert set(values) <= set(fields)
        assert name in fields["preset"].metadata["help"]
        assert stage.from_values({}, name) == stage(**{**values, "preset": name})
