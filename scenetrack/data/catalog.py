"""Data sets by name: ``demo``, ``mit8`` or a folder, as labelled images in two splits."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scenetrack.data.dataset import SceneDataset, Split
from scenetrack.data.decoding import unreadable
from scenetrack.data.demo.scenes import demo_folder
from scenetrack.data.download import MIT8_URL, download_split
from scenetrack.data.duplicates import without_copies
from scenetrack.data.folders import TEST, TRAIN, UNSPLIT, FolderListing, list_folder
from scenetrack.data.image_facts import ImageFacts, examine_images
from scenetrack.data.manifest import compare, read_manifest
from scenetrack.errors import ConfigError, DataError
from scenetrack.system.files import cache_dir, printable, user_path

logger = logging.getLogger(__name__)

DEMO, MIT8 = "demo", "mit8"
_TEST_FRACTION = 0.3


def load_dataset(
    data: str, *, seed: int, skip_bad: bool = False, drop_duplicates: bool = False
) -> SceneDataset:
    """Find the data set, draw or download it if needed, and decode every image to check it.

    Args:
        data: ``demo``, ``mit8``, or a folder of train/CLASS/* and test/CLASS/*, or of CLASS/*,
            which is split 70 to 30 in each class.
        seed: seed of that split; it affects nothing else.
        skip_bad: leave out images that cannot be decoded instead of raising.
        drop_duplicates: leave out training images whose very bytes are in test too.

    Raises:
        DataError: the name is empty, the folder does not exist or is no usable data set, or an
            image cannot be decoded.
    """
    name, root = find_data(data)
    listing = list_folder(root)
    if name == MIT8:
        _check_paths(root, listing)
    _raise_first(listing.problems())
    facts = _examine(listing)
    bad = tuple((path, found.problem) for path, found in facts.items() if found.problem)
    if bad and not skip_bad:
        more = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise DataError(f"{unreadable(*bad[0])}, or go on without it with --skip-bad{more}")
    if bad:
        images = "1 unreadable image" if len(bad) == 1 else f"{len(bad)} unreadable images, first"
        logger.warning("leaving out %s %s", images, bad[0][0])
        listing = listing.without([path for path, _ in bad])
        _raise_first(listing.problems())
    if name == MIT8:
        _warn_of_different_files(root, facts)
    if passed_over := listing.passed_over():
        logger.info("passed over in %s: %s", root, passed_over)
    if untested := listing.untested():
        logger.warning("classes without test images (training only): %s", ", ".join(untested))
    train, test = _splits(listing, facts, seed)
    left_out: list[tuple[str, str]] = []
    if drop_duplicates:
        train, left_out = without_copies(train, test)
        _check_classes(train, listing.class_names, root)
    lines = [*_digest_lines(TRAIN, train), *_digest_lines(TEST, test)]
    content = "\n".join(sorted(lines)).encode(errors="surrogateescape")
    digest = hashlib.sha256(content).hexdigest()[:16]
    return SceneDataset(name, root, listing.class_names, train, test, digest, bad, tuple(left_out))


def _check_classes(train: Split, class_names: Sequence[str], root: Path) -> None:
    """Raise DataError where nothing of a class is left to train on."""
    counts = np.bincount(train.labels, minlength=len(class_names))
    if not counts.all():
        raise DataError(
            f"at least one training image per class is required, but in {root} all of class "
            f"{class_names[int(counts.argmin())]!r} are in test too: add others, or leave "
            "drop_duplicates out"
        )


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out ``fraction`` of each class at random.

    The number held out is rounded for each class. If ``fraction`` is above 0, a class of two or
    more has at least one image on each side; the only image of a class is kept.

    Args:
        labels: class indices int [N].
        fraction: fraction to hold out, 0 <= fraction < 1.
        seed: seed of the draw.

    Returns:
        Sorted indices of the images kept and held out, int64 [K] and [N - K].

    Raises:
        ConfigError: ``fraction`` is outside its range.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"a fraction of at least 0 and below 1 is required. Received: {fraction}")
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if fraction > 0 and len(members) > 1:
            share = int(np.floor(fraction * len(members) + 0.5))
            held[members[: min(max(share, 1), len(members) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def find_data(data: str) -> tuple[str, Path]:
    """Return the name and the folder of a data set; draw or download it if needed.

    Raises:
        DataError: ``data`` is empty, or mit8 can be neither found nor downloaded.
        InputError: the cache cannot be written, or the home folder is unknown.
    """
    if not data.strip():
        raise DataError(f"a data set is required: name a folder, demo or mit8. Received: {data!r}")
    if data == DEMO:
        return DEMO, demo_folder()
    if data == MIT8:
        return MIT8, _find_mit8()
    root = user_path(data)
    # Not Path.resolve, which raises for a loop of links.
    return os.path.basename(os.path.realpath(root)), root


def _find_mit8() -> Path:
    named = os.environ.get("SCENETRACK_DATA")
    if not named:
        folder = download_split(MIT8_URL, read_manifest(), cache_dir() / MIT8)
        return _parent_of_splits(folder) or folder
    root = _parent_of_splits(user_path(named))
    if root is None:
        raise DataError(
            f"SCENETRACK_DATA must name the folder that holds the MIT split's {TRAIN}/ and "
            f"{TEST}/, or the one above it. Received: {printable(named)}"
        )
    return root


def _parent_of_splits(folder: Path) -> Path | None:
    """Return ``folder`` or its MIT_split, whichever contains train/ and test/."""
    for root in (folder, folder / "MIT_split"):
        # Not Path.is_dir, which raises for a name that is too long.
        if os.path.isdir(root / TRAIN) and os.path.isdir(root / TEST):
            return root
    return None


def _examine(listing: FolderListing) -> dict[Path, ImageFacts]:
    paths = [path for _, _, path in listing.entries()]
    return dict(zip(paths, examine_images(paths), strict=True))


def _raise_first(problems: Sequence[str]) -> None:
    if problems:
        raise DataError(problems[0])


def _check_paths(root: Path, listing: FolderListing) -> None:
    """Raise DataError unless the files have the names of the official split's files."""
    found = ((path.relative_to(root).as_posix(), "") for _, _, path in listing.entries())
    comparison = compare(found, read_manifest())
    if os.environ.get("SCENETRACK_DATA"):
        remedy = f"complete it, or use it under its own name with --data {root}"
    else:
        remedy = f"delete {cache_dir() / MIT8} to download it again"
    for paths, what in ((comparison.missing, "missing"), (comparison.extra, "not part of it")):
        if paths:
            raise DataError(
                f"{root} is not the official MIT split of {comparison.expected} files: "
                f"{len(paths)} {what}, the first is {printable(paths[0])}: {remedy}"
            )


def _warn_of_different_files(root: Path, facts: Mapping[Path, ImageFacts]) -> None:
    found = ((path.relative_to(root).as_posix(), fact.digest) for path, fact in facts.items())
    comparison = compare(found, read_manifest())
    if comparison.different:
        logger.warning(
            "%d of %d files in %s differ from the official MIT split, the first is %s: "
            "results may not be comparable with published ones",
            len(comparison.different),
            comparison.expected,
            root,
            comparison.different[0],
        )


def _splits(
    listing: FolderListing, facts: Mapping[Path, ImageFacts], seed: int
) -> tuple[Split, Split]:
    order = {name: index for index, name in enumerate(listing.class_names)}
    entries = list(listing.entries())
    images = Split(
        paths=tuple(path for _, _, path in entries),
        labels=np.array([order[name] for _, name, _ in entries], dtype=np.int64),
        names=tuple(listing.name(part, path) for part, _, path in entries),
        digests=tuple(facts[path].digest for _, _, path in entries),
    )
    if UNSPLIT in listing.parts:
        kept, held = stratified_split(images.labels, _TEST_FRACTION, seed)
    else:
        testing = np.array([part == TEST for part, _, _ in entries])
        kept, held = np.flatnonzero(~testing), np.flatnonzero(testing)
    return images.subset(kept), images.subset(held)


def _digest_lines(part: str, split: Split) -> list[str]:
    return [
        "\t".join((part, *name.split("/", 1), digest))
        for name, digest in zip(split.names, split.digests, strict=True)
    ]
