"""Texts for a terminal: names of others shown as they are spelled, never obeyed.

The name of a class or a file may hold the codes by which a terminal is told to move its cursor,
change its title or write from right to left. They are shown as Python writes them: ``\\x1b``.
"""

from __future__ import annotations

import io
import logging
import re
import sys

# Control characters but the newline; those that change the direction of a text or end a line of
# it; and halves of characters, which no encoding can write.
HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def escape_unprintable() -> None:
    """Let standard output and error write ``\\xXX`` for what their encoding does not have.

    Class names may be in any script, and names of files in no encoding at all.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """Return lines of text with everything that a terminal would obey written out."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_name(name: str) -> str:
    """Return a name for a line of text: as ``visible`` shows it, with newlines as ``\\n``."""
    return visible(name).replace("\n", "\\n")


def say(text: str) -> None:
    """Print lines of text to standard output, as ``visible`` shows them."""
    print(visible(text))


class VisibleFormatter(logging.Formatter):
    """Formats a log record as its message alone, as ``visible`` shows it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of the record."""
        return visible(super().format(record))
