"""The folder report: counts, groups of duplicates, problems and the comparison with MIT 8."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.data import check
from scenetrack.data.check import check_folder, format_report
from scenetrack.data.image_facts import examine_images
from scenetrack.data.manifest import ManifestEntry
from scenetrack.errors import DataError


def save(path: Path, seed: int, width: int = 8, height: int = 6, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    save(root / "train" / "sea" / "a.png", 0)
    save(root / "train" / "sea" / "b.png", 1, width=20, height=30)
    save(root / "train" / "hill" / "a.png", 2, mode="L")
    save(root / "test" / "sea" / "a.png", 3, width=10, height=6)
    save(root / "test" / "hill" / "a.png", 4)
    return root


def test_counts_and_sizes(folder: Path) -> None:
    report = check_folder(folder)
    assert report.counts == {"train": {"hill": 1, "sea": 2}, "test": {"hill": 1, "sea": 1}}
    sizes = report.sizes
    assert sizes is not None
    assert (sizes.min_width, sizes.median_width, sizes.max_width) == (8, 8, 20)
    assert (sizes.min_height, sizes.median_height, sizes.max_height) == (6, 6, 30)
    assert sizes.modes == {"RGB": 4, "L": 1}
    assert report.unreadable == report.duplicates == report.problems == ()
    assert not report.is_official_mit8


def test_kinds_of_duplicates(folder: Path) -> None:
    def copy(source: str, target: str) -> tuple[Path, Path]:
        shutil.copy(folder / source, folder / target)
        return folder / source, folder / target

    pairs = {
        "within a split": copy("train/sea/a.png", "train/sea/z.png"),
        "across splits": copy("test/sea/a.png", "train/sea/y.png"),
        "across classes": copy("train/hill/a.png", "train/sea/x.png"),
        "across splits and across classes": copy("test/hill/a.png", "train/sea/w.png"),
    }
    groups = check_folder(folder).duplicates
    assert {group.kind: set(group.paths) for group in groups} == {
        kind: set(pair) for kind, pair in pairs.items()
    }


def test_bad_files_are_reported_and_not_raised(folder: Path) -> None:
    bad = folder / "test" / "sea" / "a.png"
    bad.write_bytes(bad.read_bytes()[:60])
    report = check_folder(folder)
    assert [path for path, _ in report.unreadable] == [bad]
    assert "1 file cannot be read" in report.problems[0]
    # Without it the class is empty, which is reported as well.
    assert "test/sea has no usable image" in report.problems[1]
    assert len(report.problems) == 2


def test_all_problems_are_listed(folder: Path) -> None:
    (folder / "train" / "lake").mkdir()
    save(folder / "test" / "town" / "a.png", 9)
    problems = check_folder(folder).problems
    assert len(problems) == 3
    assert "3 for 4 classes" in problems[0]
    assert "train/lake has no usable image" in problems[1]
    assert "class 'town' is in test but not in train" in problems[2]


def test_ignored_entries_are_counted_by_kind(folder: Path) -> None:
    assert check_folder(folder).remarks == ()
    sea = folder / "train" / "sea"
    (sea / "notes.TXT").write_text("")
    (sea / "b.txt").write_text("")
    (sea / "README").write_text("")
    (folder / "train" / ".DS_Store").write_text("")
    save(folder / "test" / "loose.png", 6)
    save(folder / "val" / "sea" / "a.png", 7)
    save(folder / "val" / "sea" / "b.png", 8)
    assert check_folder(folder).remarks == (
        "passed over: 2 .txt, 2 images in folders beside train/ and test/, "
        "1 .png beside class folders, 1 files without suffix, 1 folders beside train/ and test/, "
        "1 hidden",
    )
    assert "passed over: 2 .txt" in format_report(check_folder(folder))


def test_classes_without_test_images_are_reported(folder: Path) -> None:
    save(folder / "train" / "lake" / "a.png", 7)
    save(folder / "train" / "moor" / "a.png", 8)
    report = check_folder(folder)
    assert report.remarks == ("classes without test images: lake, moor",)
    assert report.problems == ()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"train": "Train", "test": "Test"}, "Test/ and Train/ must be written train/ and test/"),
        ({"test": "TEST"}, "has train/ but no test/: rename TEST/"),
    ],
)
def test_capitals_are_named_as_the_cause(folder: Path, names: dict[str, str], says: str) -> None:
    for old, new in names.items():
        (folder / old).rename(folder / new)
    (problem,) = check_folder(folder).problems
    assert says in problem


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
@pytest.mark.parametrize("old", ["train/sea", "train/sea/b.png"])
def test_names_in_other_encodings_are_a_problem(folder: Path, old: str) -> None:
    (folder / old).rename((folder / old).with_name(os.fsdecode(b"caf\xe9.png")))
    report = check_folder(folder)
    assert "names in UTF-8 are required" in report.problems[0]
    assert r"caf\udce9.png is not: rename it" in report.problems[0]
    assert "rename it" in format_report(report).encode().decode()


def test_empty_folder_and_no_folder(tmp_path: Path) -> None:
    report = check_folder(tmp_path)
    assert report.sizes is None
    assert "no images in" in report.problems[0]
    assert "no images in" in format_report(report)
    with pytest.raises(DataError, match="there is no folder"):
        check_folder(tmp_path / "gone")


@pytest.fixture
def official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the folder as it stands now the official split."""

    def declare() -> None:
        paths = sorted(folder.rglob("*.png"))
        manifest = tuple(
            ManifestEntry(*path.relative_to(folder).parts, facts.digest)
            for path, facts in zip(paths, examine_images(paths), strict=True)
        )
        monkeypatch.setattr(check, "read_manifest", lambda: manifest)

    return declare


def test_likeness_to_the_official_split(folder: Path, official: Callable[[], None]) -> None:
    official()
    assert check_folder(folder).is_official_mit8
    save(folder / "train" / "sea" / "a.png", 77)
    save(folder / "train" / "sea" / "more.png", 78)
    (folder / "test" / "hill" / "a.png").unlink()
    report = check_folder(folder)
    assert not report.is_official_mit8
    assert report.mit8.different == ("train/sea/a.png",)
    assert report.mit8.extra == ("train/sea/more.png",)
    assert report.mit8.missing == ("test/hill/a.png",)
    text = format_report(report)
    assert "not quite the official MIT 8-scene split of 5 images" in text
    assert "missing: 1, the first is test/hill/a.png" in text


def test_report_reads_as_a_table(folder: Path) -> None:
    shutil.copy(folder / "train" / "sea" / "a.png", folder / "train" / "hill" / "copy.png")
    save(folder / "train" / "lake" / "a.png", 20)
    text = format_report(check_folder(folder))
    assert text.splitlines()[:7] == [
        str(folder),
        "",
        "class   train    test",
        "hill        2       1",
        "lake        1       -",
        "sea         2       1",
        "total       5       2",
    ]
    assert "across classes: train/hill/copy.png = train/sea/a.png" in text
    assert "unreadable files: none" in text
    assert text.endswith("this is not the official MIT 8-scene split")


def test_long_lists_are_cut(folder: Path) -> None:
    for index in range(25):
        (folder / "train" / "sea" / f"bad{index:02d}.png").write_bytes(b"no image")
    text = format_report(check_folder(folder))
    assert "unreadable files: 25" in text
    assert "and 5 more" in text


@pytest.mark.realdata
def test_real_split() -> None:
    root = Path(os.environ["SCENETRACK_DATA"])
    report = check_folder(root / "MIT_split" if (root / "MIT_split").is_dir() else root)
    assert report.is_official_mit8
    assert report.problems == ()
    assert sum(report.counts["train"].values()) == 1881
    assert sorted(group.kind for group in report.duplicates) == ["across classes", "within a split"]
    assert "this is the official MIT 8-scene split" in format_report(report)
