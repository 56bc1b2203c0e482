"""Generator of the MLproject file from the configs of the entry points.

``python -m scenetrack.cli.mlproject > MLproject`` updates the file after a change of a config.
"""

from __future__ import annotations

import dataclasses
import json

from scenetrack.config import ENTRY_POINTS, field_types, format_value
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.parsing import flag_name

_HEADER = """\
# Written from scenetrack/config by: python -m scenetrack.cli.mlproject > MLproject
name: scenetrack
# The package is run from this folder and needs no installation in the environment.
conda_env: conda.yaml
entry_points:
"""


def render() -> str:
    """Return the text of the MLproject file, which lists every one of ``config.ENTRY_POINTS``."""
    return _HEADER + "\n".join(map(_entry_point, ENTRY_POINTS.values()))


def _entry_point(entry: EntryPoint) -> str:
    config, positional = entry.config, entry.positional
    names = [item.name for item in dataclasses.fields(config)]
    words = [f"python -m scenetrack {entry.name}"]
    words += [f"{{{name}}}" for name in positional]
    words += [f"{flag_name(name)} {{{name}}}" for name in names if name not in positional]
    types = field_types(config)
    lines = [f"  {entry.name}:", "    parameters:"]
    for item in dataclasses.fields(config):
        # mlflow checks no type but path and uri, whose checks leave runs unfinished.
        kind = "float" if types[item.name] in (int, float) else "string"
        default = format_value(item.default)
        shown = default if kind == "float" else json.dumps(default)
        lines.append(f"      {item.name}: {{type: {kind}, default: {shown}}}")
    lines += ["    command: >-", *(f"      {word}" for word in words)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
