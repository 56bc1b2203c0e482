"""Texts in CSV files that a spreadsheet would run as formulas, guarded and read back.

A spreadsheet takes a cell that begins with an equals sign for a formula, which may open addresses
and, where the user agrees, programs. Such a text gets an apostrophe before it, which spreadsheets
take for the beginning of a plain text. So that it can be taken off again, a text that has
apostrophes before such a sign gets one more; other texts, and numbers, stay as they are.
"""

from __future__ import annotations

import re

# The beginning of a formula. Spreadsheets of East Asia take the wide signs for the narrow ones.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile(f"'{FORMULA.pattern}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def _needs_guard(text: str) -> bool:
    return bool(FORMULA.match(text)) and not _NUMBER.fullmatch(text)


def guarded(cell: object) -> object:
    """Return a cell of a CSV file; a text that is a formula has an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and _needs_guard(cell) else cell


def unguarded(text: str) -> str:
    """Return the text that ``guarded`` wrote as ``text``."""
    return text[1:] if _GUARDED.match(text) and _needs_guard(text[1:]) else text
