"""Output goes on whatever the terminal's encoding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
