"""What lies in a data folder: image files by split and class, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scenetrack.data.images import IMAGE_SUFFIXES
from scenetrack.errors import DataError

TRAIN, TEST = "train", "test"
# The one part of a folder that has classes at its top and is yet to be split.
UNSPLIT = "all"


@dataclass(frozen=True)
class FolderListing:
    """Image files below ``root``: ``parts`` maps split -> class name -> files sorted by name.

    The splits are ``train`` and ``test``, or ``all`` where the class folders lie at the top.
    """

    root: Path
    parts: Mapping[str, Mapping[str, tuple[Path, ...]]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, sorted (capitals first)."""
        return tuple(sorted({name for classes in self.parts.values() for name in classes}))

    def entries(self) -> Iterator[tuple[str, str, Path]]:
        """(split, class name, file) of every image, in order."""
        for part, classes in self.parts.items():
            for name in sorted(classes):
                for path in classes[name]:
                    yield part, name, path

    def without(self, paths: Collection[Path]) -> FolderListing:
        """The same folder as if ``paths`` were not there; classes stay, even emptied ones."""
        drop = set(paths)
        return FolderListing(
            self.root,
            {
                part: {name: tuple(p for p in kept if p not in drop) for name, kept in c.items()}
                for part, c in self.parts.items()
            },
        )

    def problems(self) -> list[str]:
        """One line for each reason why nothing can be learned from this folder."""
        for part, other in ((TRAIN, TEST), (TEST, TRAIN)):
            if part in self.parts and other not in self.parts:
                return [
                    f"{self.root} has {part}/ but no {other}/: add {other}/CLASS/*, or give "
                    f"{self.root / part} itself, which is then split with the seed"
                ]
        found = sum(1 for _ in self.entries())
        if not found:
            return [
                f"no images in {self.root}: expected train/CLASS/* and test/CLASS/*, or CLASS/*, "
                f"with files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
            ]
        return [
            *self._too_few(),
            *(line for part in self.parts for line in self._empty_classes(part)),
            *self._unknown_classes(),
        ]

    def _too_few(self) -> Iterator[str]:
        classes = len(self.class_names)
        if classes == 1:
            yield (
                f"at least two classes are required, but {self.root} has only "
                f"{self.class_names[0]!r}: add a folder for each class"
            )
        learned = [path for part, _, path in self.entries() if part != TEST]
        if len(learned) < classes:
            yield (
                f"at least one training image a class is required, but {self.root} has "
                f"{len(learned)} for {classes} classes: add images or remove classes"
            )
        if TEST in self.parts and not any(self.parts[TEST].values()):
            yield f"no images in {self.root / TEST}: add test images to {TEST}/CLASS/*"

    def _empty_classes(self, part: str) -> Iterator[str]:
        for name, paths in self.parts[part].items():
            if not paths:
                place = self.root / name if part == UNSPLIT else self.root / part / name
                yield f"class folder {place} has no usable image: add images or remove the folder"

    def _unknown_classes(self) -> Iterator[str]:
        known = self.parts.get(TRAIN)
        for name in self.parts.get(TEST, ()) if known is not None else ():
            if name not in (known or {}):
                yield (
                    f"class {name!r} is in test but not in train: add {self.root / TRAIN / name} "
                    f"or remove {self.root / TEST / name}"
                )


def list_folder(root: Path) -> FolderListing:
    """List the images of ``root``; hidden files and other kinds of file are passed over.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    if not root.is_dir():
        raise DataError(
            f"a data folder is required, but there is no folder {root}: give a folder, demo or mit8"
        )
    try:
        split = [part for part in (TRAIN, TEST) if (root / part).is_dir()]
        if split:
            return FolderListing(root, {part: _list_classes(root / part) for part in split})
        return FolderListing(root, {UNSPLIT: _list_classes(root)})
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename} ({error.strerror}): change its permissions"
        ) from error


def _list_classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    return {
        entry.name: tuple(sorted(path for path in entry.iterdir() if _is_image(path)))
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _is_image(path: Path) -> bool:
    # A dangling link is listed, so that it is reported and not passed over in silence.
    wanted = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return wanted and (path.is_file() or (path.is_symlink() and not path.exists()))
