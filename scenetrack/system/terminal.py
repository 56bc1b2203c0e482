"""Output that never fails, whatever the terminal's encoding."""

from __future__ import annotations

import io
import sys


def escape_unprintable() -> None:
    """Let standard output and error write ``\\xXX`` for what their encoding does not have.

    Class names may be in any script, and names of files in no encoding at all.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
