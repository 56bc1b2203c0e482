"""Paths of image files from words, folders, patterns and standard input, as one list."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, Self, TextIO

import numpy as np

from scenetrack.data.walk import image_files, is_image_file
from scenetrack.errors import InputError
from scenetrack.system.files import printable

STDIN = "-"
_IN_MEMORY = 2**24
_CHUNK = 2**16


class PathList:
    """Paths in the order given, each once, as many as there are.

    They lie in a temporary file once they take more than 16 MB, so that a million of them costs
    no more memory than a few bytes each while doubles are looked for. Use it with ``with``.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._spool = _spool()
        self._count = 0
        try:
            self._fill(paths)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return _read(self._spool)

    def digest(self) -> str:
        """Return the hex digest of the paths and their order."""
        digest = hashlib.sha256()
        for path in self:
            digest.update(os.fsencode(path) + b"\0")
        return digest.hexdigest()

    def _fill(self, paths: Iterable[str]) -> None:
        hashes = array("q", (hash(encoded) for encoded in self._write(paths)))
        suspects = _repeated(np.frombuffer(hashes, np.int64))
        if suspects.any():
            with self._spool as doubled:
                self._spool, self._count = _spool(), 0
                for _ in self._write(_without_doubles(_read(doubled), suspects)):
                    pass

    def _write(self, paths: Iterable[str]) -> Iterator[bytes]:
        for path in paths:
            encoded = os.fsencode(path)
            self._spool.write(encoded + b"\0")  # the one byte that no path can hold
            self._count += 1
            yield encoded


def find_images(words: Sequence[str], stdin: TextIO) -> PathList:
    """Return the image files that the words of a command line mean.

    Args:
        words: each a file, whatever its suffix; a folder, whose image files are taken with those
            of its subfolders, sorted, hidden ones left out; a pattern with ``*``, ``?``, ``[]``
            or ``**``, taken like its sorted matches, of which only image files are taken;
            or ``-`` for paths of files on standard input.
        stdin: lines, or texts that each end with a zero byte (``find -print0``). These paths are
            not looked at here, for there may be millions.

    Raises:
        InputError: a word that means no image, or a folder that cannot be listed.
    """
    if not words:
        raise InputError("images are required: give files, folders, patterns, or - for a list")
    paths = PathList(path for word in dict.fromkeys(words) for path in _meant(word, stdin))
    if not len(paths):
        paths.close()
        raise InputError("paths of images are required, but standard input has none: pipe a list")
    return paths


def _spool() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_IN_MEMORY)


def _meant(word: str, stdin: TextIO) -> Iterator[str]:
    if word == STDIN:
        yield from _listed(stdin.buffer)
        return
    found = False
    for path in _of_word(word):
        found = True
        yield path
    if not found:
        raise InputError(
            f"an image file, a folder of images or a pattern is required, but {printable(word)} "
            "means no image: correct or leave out this word"
        )


def _of_word(word: str) -> Iterator[str]:
    kind = _kind(word)
    if kind == "folder":
        yield from _below(word)
    elif kind == "file":
        yield str(Path(word))
    elif glob.has_magic(word):
        for match in sorted(glob.iglob(word, recursive=True)):
            if is_image_file(match) and not os.path.basename(match).startswith("."):
                yield str(Path(match))
            elif _kind(match) == "folder":
                yield from _below(match)


def _kind(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a zero byte in a path is a ValueError
        return "missing"
    return "folder" if stat.S_ISDIR(mode) else "file"


def _below(folder: str) -> Iterator[str]:
    try:
        yield from map(str, image_files(folder, Counter()))
    except OSError as error:
        raise InputError(
            f"a folder of images is required, but {printable(error.filename)} cannot be listed "
            f"({error.strerror}): change its permissions or give other words"
        ) from error


def _listed(stdin: BinaryIO) -> Iterator[str]:
    chunk = stdin.read(_CHUNK)
    zeros = b"\0" in chunk
    for piece in _pieces(chunk, stdin, b"\0" if zeros else b"\n"):
        path = piece if zeros else piece.rstrip(b"\r")
        if path:
            yield str(Path(os.fsdecode(path)))


def _read(file: IO[bytes]) -> Iterator[str]:
    place = 0
    rest = b""
    while True:
        file.seek(place)  # others may read from it between our steps
        chunk = file.read(_CHUNK)
        if not chunk:
            return
        place += len(chunk)
        *whole, rest = (rest + chunk).split(b"\0")
        yield from map(os.fsdecode, whole)


def _pieces(chunk: bytes, file: BinaryIO, end: bytes) -> Iterator[bytes]:
    rest = b""
    while chunk:
        *whole, rest = (rest + chunk).split(end)
        yield from whole
        chunk = file.read(_CHUNK)
    yield rest


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Tell which of the hashes occur more than once: int64 [N] -> bool [N]."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    repeated = np.zeros(len(hashes), bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    return repeated


def _without_doubles(paths: Iterable[str], suspects: np.ndarray) -> Iterator[str]:
    seen: set[str] = set()
    for path, suspect in zip(paths, suspects, strict=True):
        if not suspect:
            yield path
        elif path not in seen:
            seen.add(path)
            yield path
