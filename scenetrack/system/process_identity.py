"""Identity of the process that a run belongs to, so that a later one can tell that it died."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def process_tags() -> dict[str, str]:
    """Return the tags of a run that this process has just started."""
    pid = os.getpid()
    return {
        "status": "started",
        "host": socket.gethostname(),
        "pid": str(pid),
        "process": process_identity(pid) or "",
    }


def process_identity(pid: int) -> str | None:
    """Return what distinguishes a process from a later one of the same PID, or None if none runs.

    On Linux this is the PID namespace (containers have their own) and the start time.
    """
    try:
        if sys.platform == "linux":
            # The second field is the program's name in parentheses and may contain spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            started = None if fields[0] == "Z" else fields[19]
            return started and f"{os.readlink('/proc/self/ns/pid')} {started}"
        words = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None
