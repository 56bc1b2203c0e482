"""The README tells every entry point and every flag."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from scenetrack.config import ENTRY_POINTS, EntryPointConfig
from scenetrack.config.parsing import flag_name
from scenetrack.mlproject import POSITIONAL

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", ENTRY_POINTS, ids=lambda stage: stage.stage)
def test_tells_the_entry_point_and_its_flags(stage: type[EntryPointConfig]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    positional = POSITIONAL.get(stage.stage, ())
    words = [stage.stage] + [
        flag_name(item.name) for item in dataclasses.fields(stage) if item.name not in positional
    ]
    missing = [word for word in words if not re.search(rf"{re.escape(word)}(?![\w-])", text)]
    assert missing == []
