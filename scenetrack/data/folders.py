"""Data folders: image files by split and class, and problems of the layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scenetrack.data.images import IMAGE_SUFFIXES
from scenetrack.errors import DataError
from scenetrack.system.files import printable

TRAIN, TEST = "train", "test"
# The only split of a folder that has class folders at its top level and is not split yet.
UNSPLIT = "all"


@dataclass(frozen=True)
class FolderListing:
    """Image files below ``root``, by split and class.

    Attributes:
        parts: split -> class name -> files sorted by name. The splits are ``train`` and ``test``,
            or ``all`` if the class folders are at the top level.
        ignored: number of ignored entries by kind.
        miswritten: folders that would be splits if their names had no capitals.
    """

    root: Path
    parts: Mapping[str, Mapping[str, tuple[Path, ...]]]
    ignored: Mapping[str, int] = field(default_factory=dict)
    miswritten: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names of all splits, sorted (capitals first)."""
        return tuple(sorted({name for classes in self.parts.values() for name in classes}))

    def entries(self) -> Iterator[tuple[str, str, Path]]:
        """Yield (split, class name, file) of every image, in order."""
        for part, classes in self.parts.items():
            for name in sorted(classes):
                for path in classes[name]:
                    yield part, name, path

    def without(self, paths: Collection[Path]) -> FolderListing:
        """Return the listing without ``paths``; classes remain, even if they become empty."""
        drop = set(paths)
        parts = {
            part: {name: tuple(p for p in kept if p not in drop) for name, kept in c.items()}
            for part, c in self.parts.items()
        }
        return replace(self, parts=parts)

    def untested(self) -> tuple[str, ...]:
        """Return the classes that will have no test image."""
        if UNSPLIT in self.parts:
            # The only image of a class is used for training.
            return tuple(name for name, paths in self.parts[UNSPLIT].items() if len(paths) < 2)
        tested = self.parts.get(TEST, {})
        return tuple(name for name in self.class_names if not tested.get(name))

    def problems(self) -> list[str]:
        """Return one line for each reason why this folder cannot be used."""
        return [*self._undecodable(), *self._missing()]

    def _undecodable(self) -> Iterator[str]:
        """Yield a line for each name that cannot be written into a run, a table or a figure."""
        named: list[Path] = [self.root]
        for part, classes in self.parts.items():
            for name, paths in classes.items():
                named += [self.root / part / name if part != UNSPLIT else self.root / name, *paths]
        for path in named:
            # Only the last part, so that a folder is not reported again for each of its files.
            text = str(path) if path == self.root else path.name
            if not _is_utf8(text):
                yield f"names in UTF-8 are required, but {printable(path)} is not: rename it"

    def _missing(self) -> list[str]:
        capitals = " and ".join(f"{name}/" for name in self.miswritten)
        for part, missing in ((TRAIN, TEST), (TEST, TRAIN)):
            if part in self.parts and missing not in self.parts:
                remedy = f"rename {capitals}" if capitals else f"add {missing}/CLASS/*"
                return [
                    f"{self.root} has {part}/ but no {missing}/: {remedy}, or give "
                    f"{self.root / part} itself, which is then split at random with the seed"
                ]
        found = sum(1 for _ in self.entries())
        if not found and capitals:
            return [
                f"no images in {self.root}: {capitals} must be written {TRAIN}/ and {TEST}/, "
                "without capitals: rename them"
            ]
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
                f"at least one training image per class is required, but {self.root} has "
                f"{len(learned)} for {classes} classes: add images or remove classes"
            )
        if UNSPLIT in self.parts and len(self.untested()) == classes:
            yield (
                "a class of two images or more is required to draw test images from, but "
                f"{self.root} has none: add images"
            )
        if TEST in self.parts and not any(self.parts[TEST].values()):
            yield f"no images in {self.root / TEST}: add test images to {TEST}/CLASS/*"

    def _empty_classes(self, part: str) -> Iterator[str]:
        for name, paths in self.parts[part].items():
            if not paths:
                folder = self.root / name if part == UNSPLIT else self.root / part / name
                yield f"class folder {folder} has no usable image: add images or remove the folder"

    def _unknown_classes(self) -> Iterator[str]:
        known = self.parts.get(TRAIN)
        for name in self.parts.get(TEST, ()) if known is not None else ():
            if name not in (known or {}):
                yield (
                    f"class {name!r} is in test but not in train: add {self.root / TRAIN / name} "
                    f"or remove {self.root / TEST / name}"
                )


def list_folder(root: Path) -> FolderListing:
    """List the images of ``root``; hidden files and files of other kinds are ignored.

    Raises:
        DataError: the folder does not exist or cannot be read.
    """
    try:
        if not root.is_dir():
            raise DataError(
                f"a data folder is required, but there is no folder {printable(root)}: "
                "give a folder, demo or mit8"
            )
        return _listing(root)
    except OSError as error:
        raise DataError(
            f"a data folder is required, but {printable(error.filename)} cannot be read "
            f"({error.strerror}): give another folder or change its permissions"
        ) from error


def _listing(root: Path) -> FolderListing:
    ignored: Counter[str] = Counter()
    miswritten = tuple(
        entry.name
        for entry in sorted(root.iterdir())
        if entry.name.lower() in (TRAIN, TEST) and entry.name not in (TRAIN, TEST)
        if entry.is_dir()
    )
    split = [part for part in (TRAIN, TEST) if (root / part).is_dir()]
    if not split:
        parts = {UNSPLIT: _list_classes(root, ignored)}
        return FolderListing(root, parts, ignored, miswritten)
    beside = [entry for entry in root.iterdir() if entry.name not in split]
    ignored.update(_kind(entry, f"beside {TRAIN}/ and {TEST}/") for entry in beside)
    parts = {part: _list_classes(root / part, ignored) for part in split}
    return FolderListing(root, parts, ignored, miswritten)


def _list_classes(folder: Path, ignored: Counter[str]) -> dict[str, tuple[Path, ...]]:
    """Return the images by class below ``folder``; count all other entries in ``ignored``."""
    classes = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            files = sorted(entry.iterdir())
            classes[entry.name] = tuple(path for path in files if _is_image(path))
            rest = set(files).difference(classes[entry.name])
            ignored.update(_kind(path, "inside class folders") for path in rest)
        else:
            ignored[_kind(entry, "beside class folders")] += 1
    return classes


def _kind(path: Path, place: str) -> str:
    """Return the name under which an ignored entry is counted."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return f"folders {place}"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return f"{suffix} {place}"
    return suffix or "files without suffix"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python keeps other bytes of a name as lone surrogates
        return False
    return True


def _is_image(path: Path) -> bool:
    # A dangling link is listed, so that it is reported and not silently ignored.
    wanted = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return wanted and (path.is_file() or (path.is_symlink() and not path.exists()))
