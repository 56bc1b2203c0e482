"""``scenetrack cache``: what it shows, what it deletes, and when it asks."""

from __future__ import annotations

import ast
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scenetrack import cli
from scenetrack.cache import ArraySpec, Cache
from scenetrack.cache.inventory import KEPT, KINDS, clear, holdings
from scenetrack.errors import InputError

PACKAGE = Path(cli.__file__).parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1GB")
    logger = logging.getLogger("scenetrack")
    handlers, level = logger.handlers, logger.level
    yield tmp_path / "cache"
    logger.handlers, logger.level = handlers, level


def keep(kind: str, count: int, **key: str) -> np.ndarray:
    """Keep an array of ``count`` thousand bytes."""
    spec = ArraySpec((count, 1000), "uint8")
    return Cache().store(kind, key, spec, iter([np.zeros(spec.shape, np.uint8)]))


def put(path: Path, size: int, used: float = 1e9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


@pytest.fixture
def filled(own_cache: Path) -> Path:
    """A cache with two arrays and something of every other kind."""
    keep("images", 500, size="128 px", contents="0123456789abcdef" * 4)
    keep("descriptors", 1000, model="f" * 64, split="train")
    for index, kind in enumerate(sorted(KINDS)):
        put(own_cache / kind / "below" / "file", 1000 * (index + 1))
        put(own_cache / kind / "some.lock", 0)
    return own_cache


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    """The lines that the command prints: its output, or its refusal."""
    assert cli.main(["cache", *words]) == code
    captured = capsys.readouterr()
    return (captured.out or captured.err).splitlines()


class TestList:
    def test_every_kind_with_its_size(
        self, filled: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        head, *lines, total, bound = run(capsys)
        assert head.split() == ["kind", "what", "size", "last", "used"]
        assert [line.split()[0] for line in lines] == sorted([*KINDS, "images", "descriptors"])
        sizes = {line.split()[0]: line for line in lines}
        arrays = r"model ffffffff, split train \(1000 x 1000 uint8\) +1\.0 MB"
        assert re.search(arrays, sizes["descriptors"])
        assert re.search(r"unfinished trainings +2\.0 kB", sizes["checkpoints"])
        assert any("size 128 px, contents 01234567 (500 x 1000 uint8)" in line for line in lines)
        # 1000 to 10000 bytes of other kinds.
        assert total == f"total 1.6 MB in {filled}"
        assert bound == "arrays 1.5 MB, at most 1.0 GB (SCENETRACK_CACHE_SIZE)"

    def test_list_is_the_default(self, filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(capsys, "list") == run(capsys)

    def test_empty(self, capsys: pytest.CaptureFixture[str]) -> None:
        head, total, _ = run(capsys)
        assert head.startswith("kind")
        assert total.startswith("total 0 B in ")

    def test_switched_off(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
        assert run(capsys)[-1] == "arrays 0 B, switched off (SCENETRACK_CACHE_SIZE)"

    def test_youngest_first_with_its_time(
        self, own_cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for n, used in (("old", 1_000_000_000), ("new", 1_100_000_000)):
            keep("images", 1, n=n)
            newest = Cache().entries()[-1]
            os.utime(newest.path / "entry.json", (used, used))
        lines = [line for line in run(capsys) if line.startswith("images")]
        for line, used in zip(lines, (1_100_000_000, 1_000_000_000), strict=True):
            assert line.endswith(time.strftime("%Y-%m-%d %H:%M", time.localtime(used)))

    def test_damaged_ones_are_shown(
        self, own_cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        keep("images", 1, n="1")
        (entry,) = Cache().entries()
        (entry.path / "entry.json").write_text("{}")
        assert f"damaged ({entry.path.name})" in run(capsys)[1]

    def test_foreign_folders_are_not(self, own_cache: Path) -> None:
        put(own_cache / "holiday" / "photo.jpg", 10)
        assert holdings() == []

    def test_bad_bound_is_refused(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "lots")
        (line,) = run(capsys, code=2)
        assert line.startswith("error: SCENETRACK_CACHE_SIZE must be a size")

    @pytest.mark.parametrize("words", [["train_mlp"], ["bundle", "x"], ["export", "x"]])
    def test_bad_bound_is_refused_before_any_work(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        words: list[str],
    ) -> None:
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "lots")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        assert cli.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: SCENETRACK_CACHE_SIZE must be a size")
        # No run was opened, and nothing was made to be kept.
        assert list(tmp_path.iterdir()) == []


class TestClear:
    def test_all_but_what_would_be_lost(
        self, filled: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = sum(entry.size for entry in holdings())
        (line,) = run(capsys, "clear", "--yes")
        left = holdings()
        assert {entry.kind for entry in left} == set(KEPT)
        assert line == "freed 1.6 MB"
        assert clear("checkpoints").freed + clear("mit8").freed == sum(entry.size for entry in left)
        assert before > sum(entry.size for entry in left)
        assert holdings() == []

    @pytest.mark.parametrize("kind", sorted({*KINDS, "descriptors"}))
    def test_one_kind(self, filled: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        kept = [entry for entry in holdings() if entry.kind != kind]
        run(capsys, "clear", kind, "-y")
        assert holdings() == kept
        # Locks stay: a process may be waiting for one.
        assert kind not in KINDS or (filled / kind / "some.lock").exists()

    def test_what_is_in_use_is_left_and_named(
        self, filled: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        held = Cache().open("descriptors", {"model": "f" * 64, "split": "train"})
        freed, named = run(capsys, "clear", "--yes")
        assert freed.startswith("freed 5")  # the 500 kB of pixels and what is small
        assert named.startswith(
            "kept, because it is in use: descriptors: model ffffffff, split train"
        )
        assert held is not None
        del held
        assert run(capsys, "clear", "descriptors", "--yes") == ["freed 1.0 MB"]

    def test_unknown_kind(self, filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (line,) = run(capsys, "clear", "sounds", "--yes", code=2)
        assert "images, mit8, models" in line
        assert line.endswith("Received: sounds")
        assert len(holdings()) == len(KINDS) + 2

    def test_nobody_to_ask(
        self,
        filled: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with open(os.devnull) as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            (line,) = run(capsys, "clear", code=2)
        assert "--yes" in line
        assert len(holdings()) == len(KINDS) + 2

    def test_a_link_leads_to_what_is_not_ours(self, own_cache: Path, tmp_path: Path) -> None:
        photo = put(tmp_path / "photos" / "photo.jpg", 10)
        (own_cache).mkdir()
        (own_cache / "mit8").symlink_to(photo.parent)
        clear("mit8")
        assert photo.exists()
        assert not (own_cache / "mit8").is_symlink()

    def test_what_cannot_be_deleted(self, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("scenetrack.cache.inventory.discard", refuse)
        with pytest.raises(InputError, match=r"forms.*cannot be deleted \(Permission denied\)"):
            clear("forms")


class TestAsking:
    """The real command at a terminal."""

    def ask(self, answer: bytes) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "scenetrack", "cache", "clear", "images"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            os.write(ours, answer)
            out, err = process.communicate(timeout=60)
        finally:
            os.close(ours)
        return process.returncode, (err + out).decode()

    def test_yes(self, own_cache: Path) -> None:
        keep("images", 3, n="1")
        code, printed = self.ask(b"y\n")
        assert code == 0
        assert "Delete all images from the cache? [y/N]" in printed
        assert re.search(r"freed 3\.\d kB\n", printed)
        assert holdings() == []

    @pytest.mark.parametrize(
        ("answer", "code", "says"),
        [(b"\n", 0, "nothing was deleted"), (b"n\n", 0, "nothing"), (b"\x04", 130, "interrupted")],
    )
    def test_no(self, answer: bytes, code: int, says: str, own_cache: Path) -> None:
        keep("images", 3, n="1")
        found, printed = self.ask(answer)
        assert found == code
        assert says in printed
        assert len(holdings()) == 1


def test_every_folder_of_the_cache_is_known_to_the_command() -> None:
    """A room that keeps something new is to be listed as well."""
    named = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cache_dir":
                named |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    assert named >= {"demo", "facts", "checkpoints"}
    assert named <= set(KINDS)
