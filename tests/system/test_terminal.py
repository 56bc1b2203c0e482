"""Texts for a terminal: nothing in them is obeyed, and everything is still told apart."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.system.terminal import VisibleFormatter, say, visible, visible_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("forêt 森 👩‍🔬", "forêt 森 👩‍🔬"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("a\tb\rc", "a\\tb\\rc"),
        ("\u202egpj.exe\u2028", "\\u202egpj.exe\\u2028"),
        ("caf\udce9", "caf\\udce9"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_by_hand(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_every_text_can_be_printed(text: str) -> None:
    shown = visible_name(text)
    assert shown.isprintable() or not text.isprintable()
    assert "\n" not in shown
    assert not {"\x1b", "\x9b", "\x07", "\x00"} & set(shown)
    shown.encode()


def test_what_is_said_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    say("class \x1b[1m\nnext")
    assert capsys.readouterr().out == "class \\x1b[1m\nnext\n"
    record = logging.LogRecord("scenetrack", 20, "", 0, "class %s", ("\x1b[1m",), None)
    assert VisibleFormatter().format(record) == "class \\x1b[1m"
