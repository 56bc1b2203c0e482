"""The report of ``scenetrack data check``: counts, sizes, duplicates and problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scenetrack.data.folders import TEST, FolderListing, list_folder
from scenetrack.data.image_facts import ImageFacts, examine_images
from scenetrack.data.manifest import ManifestComparison, compare, read_manifest
from scenetrack.system.terminal import visible, visible_name

_SHOWN = 20


@dataclass(frozen=True)
class SizeSummary:
    """Statistics of the readable images: widths and heights in pixels, number of images by mode."""

    min_width: int
    median_width: float
    max_width: int
    min_height: int
    median_height: float
    max_height: int
    modes: Mapping[str, int]


@dataclass(frozen=True)
class DuplicateGroup:
    """Files with identical bytes, and whether they are in several splits or several classes."""

    paths: tuple[Path, ...]
    across_splits: bool
    across_classes: bool

    @property
    def kind(self) -> str:
        """``within a split``, ``across splits``, ``across classes`` or both of the latter."""
        kinds = (("across splits", self.across_splits), ("across classes", self.across_classes))
        return " and ".join(kind for kind, holds in kinds if holds) or "within a split"


@dataclass(frozen=True)
class CheckReport:
    """Result of checking the data folder ``root``.

    Attributes:
        counts: split -> class -> number of images, readable or not; the only split is ``all`` if
            the folder is not split yet.
        problems: lines for which loading the folder would fail.
        overlaps: lines on images in train and test, or in two classes: loading does not fail, but
            figures are better or worse than they should be.
        remarks: lines that are worth knowing but do not prevent loading.
        mit8: comparison with the official MIT 8-scene split.
    """

    root: Path
    counts: Mapping[str, Mapping[str, int]]
    sizes: SizeSummary | None
    unreadable: tuple[tuple[Path, str], ...]
    duplicates: tuple[DuplicateGroup, ...]
    problems: tuple[str, ...]
    overlaps: tuple[str, ...]
    remarks: tuple[str, ...]
    mit8: ManifestComparison

    @property
    def is_official_mit8(self) -> bool:
        return self.mit8.same


def check_folder(path: Path) -> CheckReport:
    """Check every image of a data folder, train/CLASS/* and test/CLASS/* or CLASS/*.

    Raises:
        DataError: the folder does not exist or cannot be listed. Other problems are reported.
    """
    listing = list_folder(path)
    entries = list(listing.entries())
    paths = [file for _, _, file in entries]
    facts = dict(zip(paths, examine_images(paths), strict=True))
    bad = tuple((file, found.problem) for file, found in facts.items() if found.problem)
    duplicates = tuple(_duplicates(entries, facts))
    found = ((file.relative_to(path).as_posix(), facts[file].digest) for file in paths)
    return CheckReport(
        root=path,
        counts={
            part: {name: len(files) for name, files in classes.items()}
            for part, classes in listing.parts.items()
        },
        sizes=_sizes([fact for fact in facts.values() if not fact.problem]),
        unreadable=bad,
        duplicates=duplicates,
        problems=tuple(_problems(listing, [file for file, _ in bad])),
        overlaps=tuple(_overlaps(duplicates, entries, listing)),
        remarks=tuple(_remarks(listing)),
        mit8=compare(found, read_manifest()),
    )


def format_report(report: CheckReport) -> str:
    """Return the report as plain text for a terminal, without a final newline."""
    parts = [
        visible_name(str(report.root)),
        "\n".join(_count_lines(report.counts)),
        "\n".join(_size_lines(report.sizes)),
        _listed(
            "unreadable files", [f"{_below(p, report)}: {why}" for p, why in report.unreadable]
        ),
        _listed(
            "groups of exact duplicates",
            [
                f"{group.kind}: {' = '.join(_below(p, report) for p in group.paths)}"
                for group in report.duplicates
            ],
        ),
        _listed("problems", (*report.problems, *report.overlaps)),
        "\n".join(report.remarks),
        "\n".join(_mit8_lines(report.mit8)),
    ]
    text = "\n\n".join(part for part in parts if part)
    return visible(text)


def _remarks(listing: FolderListing) -> Iterator[str]:
    untested = listing.untested()
    if untested and any(True for _ in listing.entries()):
        yield f"classes without test images: {', '.join(untested)}"
    if listing.ignored:
        yield f"passed over: {listing.passed_over()}"


def _problems(listing: FolderListing, bad: Sequence[Path]) -> list[str]:
    lines = listing.problems()
    if bad:
        lines.append(
            f"{len(bad)} {'file' if len(bad) == 1 else 'files'} cannot be read: replace or remove "
            "the unreadable files, or leave them out with --skip-bad"
        )
        # Without its bad files the folder may lack more than it does now.
        lines += [line for line in listing.without(bad).problems() if line not in lines]
    return lines


def _overlaps(
    duplicates: Sequence[DuplicateGroup],
    entries: Sequence[tuple[str, str, Path]],
    listing: FolderListing,
) -> Iterator[str]:
    """Yield a line for test images in train, for images in two classes, for classes like others."""
    tested = {path for part, _, path in entries if part == TEST}
    copies = sum(
        path in tested for group in duplicates if group.across_splits for path in group.paths
    )
    if copies:
        yield (
            f"test images that are also in train: {copies} of {len(tested)}; remove them from one "
            "of the two, or leave the training copies out with --drop-duplicates true"
        )
    twofold = sum(group.across_classes for group in duplicates)
    if twofold:
        yield f"images that stand in two classes: {twofold}; remove what is wrong"
    folded: dict[str, str] = {}
    for name in listing.class_names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            yield f"classes {other!r} and {name!r} differ in capitals only: join or rename them"


def _sizes(facts: Sequence[ImageFacts]) -> SizeSummary | None:
    if not facts:
        return None
    widths, heights = [fact.width for fact in facts], [fact.height for fact in facts]
    modes = Counter(fact.mode for fact in facts)
    return SizeSummary(
        min(widths),
        median(widths),
        max(widths),
        min(heights),
        median(heights),
        max(heights),
        dict(modes.most_common()),
    )


def _duplicates(
    entries: Iterable[tuple[str, str, Path]], facts: Mapping[Path, ImageFacts]
) -> list[DuplicateGroup]:
    groups: dict[str, list[tuple[str, str, Path]]] = defaultdict(list)
    for entry in entries:
        # A file that could not be opened has no digest and is a duplicate of nothing.
        if digest := facts[entry[2]].digest:
            groups[digest].append(entry)
    return [
        DuplicateGroup(
            paths=tuple(path for _, _, path in group),
            across_splits=len({part for part, _, _ in group}) > 1,
            across_classes=len({name for _, name, _ in group}) > 1,
        )
        for group in groups.values()
        if len(group) > 1
    ]


def _below(path: Path, report: CheckReport) -> str:
    return visible_name(path.relative_to(report.root).as_posix())


def _count_lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    parts = list(counts)
    names = sorted({name for classes in counts.values() for name in classes})
    width = max(len(visible_name(name)) for name in [*names, "class", "total"])
    lines = [f"{'class':{width}}" + "".join(f"{part:>8}" for part in parts)]
    for name in names:
        cells = (counts[part].get(name) for part in parts)
        lines.append(
            f"{visible_name(name):{width}}"
            + "".join(f"{'-' if cell is None else cell:>8}" for cell in cells)
        )
    totals = "".join(f"{sum(counts[part].values()):>8}" for part in parts)
    return [*lines, f"{'total':{width}}{totals}"]


def _size_lines(sizes: SizeSummary | None) -> list[str]:
    if sizes is None:
        return []
    modes = ", ".join(f"{mode} {count}" for mode, count in sizes.modes.items())
    return [
        "pixels        min  median     max",
        f"width    {sizes.min_width:>8}{sizes.median_width:>8g}{sizes.max_width:>8}",
        f"height   {sizes.min_height:>8}{sizes.median_height:>8g}{sizes.max_height:>8}",
        f"modes    {modes}",
    ]


def _listed(what: str, lines: Sequence[str]) -> str:
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  and {len(lines) - _SHOWN} more")
    return "\n".join([f"{what}: {len(lines) or 'none'}", *shown])


def _mit8_lines(comparison: ManifestComparison) -> list[str]:
    if comparison.same:
        return ["this is the official MIT 8-scene split"]
    if len(comparison.missing) == comparison.expected:
        return ["this is not the official MIT 8-scene split"]
    parts = (
        ("missing", comparison.missing),
        ("extra", comparison.extra),
        ("different", comparison.different),
    )
    return [
        f"this is not quite the official MIT 8-scene split of {comparison.expected} images:",
        *(f"  {what}: {len(p)}, the first is {p[0]}" for what, p in parts if p),
    ]
