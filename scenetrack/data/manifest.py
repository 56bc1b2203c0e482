"""Manifest of the official MIT 8-scene split, and the comparison of a folder with it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, order=True)
class ManifestEntry:
    """An image of a split: ``split`` is train or test, ``sha256`` the hex digest of its bytes."""

    split: str
    class_name: str
    file: str
    sha256: str

    @property
    def path(self) -> str:
        """Path of the file relative to the folder that contains train/ and test/."""
        return f"{self.split}/{self.class_name}/{self.file}"


@dataclass(frozen=True)
class ManifestComparison:
    """Relative paths that are missing in a folder, extra, or present with different contents."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    different: tuple[str, ...]
    expected: int

    @property
    def same(self) -> bool:
        return not (self.missing or self.extra or self.different)


def read_manifest() -> tuple[ManifestEntry, ...]:
    """Return the 2,688 images of the official split, as packaged in ``mit8.csv``."""
    text = files("scenetrack.data").joinpath("mit8.csv").read_text(encoding="utf-8")
    return tuple(
        ManifestEntry(row["split"], row["class"], row["file"], row["sha256"])
        for row in csv.DictReader(text.splitlines())
    )


def compare(
    found: Iterable[tuple[str, str]], manifest: Iterable[ManifestEntry]
) -> ManifestComparison:
    """Compare (relative path, sha256) pairs with a manifest."""
    present = dict(found)
    wanted = {entry.path: entry.sha256 for entry in manifest}
    return ManifestComparison(
        missing=tuple(sorted(wanted.keys() - present.keys())),
        extra=tuple(sorted(present.keys() - wanted.keys())),
        different=tuple(
            sorted(p for p in wanted.keys() & present.keys() if wanted[p] != present[p])
        ),
        expected=len(wanted),
    )
