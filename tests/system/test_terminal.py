"""Texts for a terminal: nothing in them is obeyed, and everything is still told apart."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

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


_SAYS = """
import sys
from scenetrack.system.terminal import escape_unprintable

escape_unprintable()
print("caf\\u00e9 \\u65e5 bad\\udcff")
print("caf\\u00e9", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"caf\\xe9 \\u65e5 bad\\udcff\n"),
        ("latin-1", b"caf\xe9 \\u65e5 bad\\udcff\n"),
        ("utf-8", "caf\u00e9 \u65e5 bad\\udcff\n".encode()),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding: str, expected: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SAYS],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert done.stdout == expected
    assert done.stderr.endswith(b"\n")
