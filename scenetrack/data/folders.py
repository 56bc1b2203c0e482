"""Data folders: image files by split and class, and problems of the layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scenetrack.data.decoding import FORMAT_NAMES, IMAGE_SUFFIXES
from scenetrack.data.walk import image_files, is_image_file, kind_of, normalised
from scenetrack.errors import DataError
from scenetrack.system.files import printable

TRAIN, TEST = "train", "test"
# The only split of a folder that has class folders at its top level and is not split yet.
UNSPLIT = "all"
_SHOWN_KINDS = 20


@dataclass(frozen=True)
class FolderListing:
    """Image files below ``root``, by split and class.

    Attributes:
        parts: split -> class name -> files sorted by name, those of nested folders included. The
            splits are ``train`` and ``test``, or ``all`` if the class folders are at the top level.
            Names are in Unicode's form NFC.
        ignored: number of entries passed over by kind.
        miswritten: folders that would be splits if their names had no capitals.
        spelt_twice: pairs of paths whose names are the same text in two spellings.
    """

    root: Path
    parts: Mapping[str, Mapping[str, tuple[Path, ...]]]
    ignored: Mapping[str, int] = field(default_factory=dict)
    miswritten: tuple[str, ...] = ()
    spelt_twice: tuple[tuple[Path, Path], ...] = ()

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

    def name(self, part: str, path: Path) -> str:
        """Return CLASS/FILE of an image in Unicode's form NFC, wherever ``root`` lies."""
        top = self.root if part == UNSPLIT else self.root / part
        return normalised(path.relative_to(top).as_posix())

    def passed_over(self) -> str:
        """Return what is not used, as words for people; empty if all is used."""
        kinds = sorted(self.ignored.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{count} {kind}" for kind, count in kinds[:_SHOWN_KINDS] if count]
        more = [f"{len(kinds) - _SHOWN_KINDS} more kinds"] if len(kinds) > _SHOWN_KINDS else []
        return ", ".join(shown + more)

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
        return [*self._undecodable(), *self._spelt_twice(), *self._missing()]

    def _spelt_twice(self) -> Iterator[str]:
        for first, second in self.spelt_twice:
            yield (
                f"names that differ are required, but {printable(first)} and {second.name!r} are "
                "the same text in two Unicode spellings: rename or join them"
            )

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
        nested = self._only_nested()
        if capitals and (nested or not found):
            return [
                f"no images in {self.root}: {capitals} must be written {TRAIN}/ and {TEST}/, "
                "without capitals: rename them"
            ]
        if nested:
            return [
                f"class folders with images are required, but in {self.root} images lie in folders "
                f"of folders only, the first is {printable(nested)}: name the folder whose folders "
                "are the classes"
            ]
        if not found:
            return [
                f"no images in {self.root}: expected train/CLASS/* and test/CLASS/*, or CLASS/*, "
                f"with {FORMAT_NAMES} files"
            ]
        return [
            *self._too_few(),
            *(line for part in self.parts for line in self._empty_classes(part)),
            *self._unknown_classes(),
        ]

    def _only_nested(self) -> str:
        """Return the first image where none lies in a class folder itself, else nothing.

        Which folders are the classes is then anyone's guess: those of ``root`` may be data sets.
        """
        names = [self.name(UNSPLIT, path) for part, _, path in self.entries() if part == UNSPLIT]
        return names[0] if names and all(name.count("/") > 1 for name in names) else ""

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
    same: list[tuple[Path, Path]] = []
    if not split:
        parts = {UNSPLIT: _list_classes(root, ignored, same)}
        return FolderListing(root, parts, ignored, miswritten, tuple(same))
    for entry in root.iterdir():
        if entry.name not in split:
            _pass_over(entry, f"beside {TRAIN}/ and {TEST}/", ignored)
    parts = {part: _list_classes(root / part, ignored, same) for part in split}
    return FolderListing(root, parts, ignored, miswritten, tuple(same))


def _list_classes(
    folder: Path, ignored: Counter[str], same: list[tuple[Path, Path]]
) -> dict[str, tuple[Path, ...]]:
    """Return the images by class below ``folder``.

    Args:
        folder: of class folders.
        ignored: counts all other entries; added to.
        same: pairs of paths whose names are the same text in two spellings; added to.
    """
    classes: dict[str, tuple[Path, ...]] = {}
    folders: dict[str, Path] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: normalised(entry.name)):
        if not entry.is_dir() or entry.name.startswith("."):
            _pass_over(entry, "beside class folders", ignored)
            continue
        name = normalised(entry.name)
        if name in folders:
            same.append((folders[name], entry))
        folders[name] = entry
        classes[name] = tuple(image_files(entry, ignored))
        same.extend(_spelt_twice(classes[name]))
    return classes


def _spelt_twice(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the pairs of files whose names are the same text in two spellings."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(normalised(str(path)), path)
        if other is not path:
            yield other, path


def _pass_over(entry: Path, place: str, ignored: Counter[str]) -> None:
    """Count an entry that is not used; of folders their images too, for people miss those."""
    kind = kind_of(entry)
    if kind == "folders":
        # By their names alone, and what cannot be listed is not: these folders may hold anything.
        below = (name for _, _, names in os.walk(entry) for name in names)
        images = sum(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in below)
        ignored[f"folders {place}"] += 1
        ignored[f"images in folders {place}"] += images
    elif kind != "hidden" and is_image_file(entry):
        ignored[f"{kind} {place}"] += 1
    else:
        ignored[kind] += 1


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python keeps other bytes of a name as lone surrogates
        return False
    return True
