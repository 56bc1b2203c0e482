"""The README lists every entry point and every flag."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from scenetrack.config import ENTRY_POINTS
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.parsing import flag_name

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("entry", ENTRY_POINTS.values(), ids=lambda entry: entry.name)
def test_tells_the_entry_point_and_its_flags(entry: EntryPoint) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    flags = [
        flag_name(item.name)
        for item in dataclasses.fields(entry.config)
        if item.name not in entry.positional
    ]
    words = [entry.name, *flags]
    missing = [word for word in words if not re.search(rf"{re.escape(word)}(?![\w-])", text)]
    assert missing == []
