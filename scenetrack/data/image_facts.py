"""Properties of image files, remembered as long as the files are the same."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL

from scenetrack.data.decoding import decoding_problem, open_image, upright_rgb
from scenetrack.data.decoding_threads import map_in_threads, progress_bar
from scenetrack.errors import DataError
from scenetrack.system.file_state import FileState
from scenetrack.system.files import cache_dir, discard, printable, replacing
from scenetrack.system.foreign import parsed_json

logger = logging.getLogger(__name__)

# Increase it whenever what is remembered of a file, or by what it is recognised, changes.
_FACTS_VERSION = 3
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image file that has been decoded.

    Attributes:
        digest: SHA-256 of the file's bytes in hex.
        width, height: size in pixels after EXIF rotation.
        mode: Pillow's name of the stored pixel format.
        problem: reason why the file cannot be used, in which case the other fields may be empty;
            empty for a good image.
    """

    digest: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""


def examine_images(paths: Sequence[Path]) -> list[ImageFacts]:
    """Return the properties of each file, in order; threads decode each image completely.

    The results are remembered. A file is decoded again if anything that the system tells of it
    changed (size, times, inode), if it was changed so recently that a change may not show, or if
    another version of Pillow decodes it.
    """
    facts: dict[Path, ImageFacts] = {}
    known = {folder: _FactsFile(folder) for folder in sorted({path.parent for path in paths})}
    for path in paths:
        remembered = known[path.parent].recall(path)
        if remembered is not None:
            facts[path] = remembered
    missing = [path for path in dict.fromkeys(paths) if path not in facts]
    with progress_bar(len(missing), "checking images") as progress:
        examined = map_in_threads(_examine, missing, progress)
    for path, (found, state) in zip(missing, examined, strict=True):
        facts[path] = found
        known[path.parent].remember(path, found, state)
    for folder in {path.parent for path in missing}:
        known[folder].save()
    return [facts[path] for path in paths]


def read_unchanged(path: Path, digest: str) -> io.BytesIO:
    """Return the content of a file that has been examined.

    Raises:
        DataError: its content is no longer that of ``digest``, or it is gone.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"images must stay as they are while a command works, but {printable(path)} cannot be "
            f"read any more ({error.strerror}): put it back and start again"
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(
            f"images must stay as they are while a command works, but {printable(path)} was "
            "changed: start again"
        )
    return io.BytesIO(content)


def _examine(path: Path) -> tuple[ImageFacts, FileState | None]:
    """Decode a file; its state is None where it changed meanwhile."""
    digest = ""
    # Broken bytes make Pillow's decoders raise almost anything, not OSError alone.
    try:
        with path.open("rb") as file:
            before = FileState.of(file.fileno())
            if before.size > _MAX_BYTES:
                raise ValueError(f"{before.size} bytes, the limit is {_MAX_BYTES}")
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()
        image = open_image(io.BytesIO(content))
        rgb, mode = upright_rgb(image), image.mode
        facts = ImageFacts(digest, rgb.width, rgb.height, mode)
    except Exception as error:
        facts = ImageFacts(digest=digest, problem=decoding_problem(error))
    try:
        after = FileState.of(path)
    except OSError:
        return facts, None
    # One that could not be opened has no state from before, and is tried again next time.
    return facts, after if digest and after == before and after.is_settled else None


class _FactsFile:
    """Cached properties of the images of one folder (JSON)."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
        self.path = cache_dir("facts") / f"{name}.json"
        self.entries = self._read()

    def recall(self, path: Path) -> ImageFacts | None:
        entry = self.entries.get(path.name)
        try:
            if entry is not None and FileState.of(path).is_that_of(entry["state"]):
                return ImageFacts(**entry["facts"])
        except (KeyError, OSError, TypeError):
            pass  # no such file, or a foreign entry: the file is examined again
        return None

    def remember(self, path: Path, facts: ImageFacts, state: FileState | None) -> None:
        """Keep the facts if the file's state is such that a later change would show."""
        if state is None:
            self.entries.pop(path.name, None)
            return
        self.entries[path.name] = {"state": state.numbers(), "facts": dataclasses.asdict(facts)}

    def save(self) -> None:
        if self.path.is_dir():
            discard(self.path)
        with replacing(self.path) as temporary:
            temporary.write_text(
                json.dumps({**_made_by(), "files": self.entries}), encoding="utf-8"
            )

    def _read(self) -> dict[str, Any]:
        try:
            content = parsed_json(self.path.read_text(encoding="utf-8"))
            files = content.pop("files")
            if content == _made_by():
                return dict(files)
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            pass  # no file yet, or a damaged one: it is written again
        return {}


def _made_by() -> dict[str, Any]:
    # Another version of Pillow may read what this one could not.
    return {"version": _FACTS_VERSION, "pillow": PIL.__version__}
