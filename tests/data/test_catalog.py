"""Data sets by name or folder: listing, splitting, and the errors of unusable folders."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from splits import split_of

from scenetrack.data import catalog
from scenetrack.data.catalog import load_dataset, stratified_split
from scenetrack.data.images import load_images
from scenetrack.data.manifest import ManifestEntry, compare, read_manifest
from scenetrack.errors import ConfigError, DataError, InputError


def add_images(folder: Path, *names: str, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *folder.name.encode()])
    for name in names:
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("sea", "Hill"):
        add_images(root / "train" / name, "b.png", "a.jpg", "c.JPG")
        add_images(root / "test" / name, "d.webp", "e.bmp")
    return root


@pytest.fixture
def plain_folder(tmp_path: Path) -> Path:
    root = tmp_path / "plain"
    add_images(root / "sea", *(f"{i}.png" for i in range(10)))
    add_images(root / "hill", *(f"{i}.png" for i in range(20)))
    return root


def test_split_folder(split_folder: Path) -> None:
    dataset = load_dataset(str(split_folder), seed=0)
    assert dataset.name == "photos"
    assert dataset.class_names == ("Hill", "sea")  # capitals sort first
    assert [path.name for path in dataset.train.paths] == ["a.jpg", "b.png", "c.JPG"] * 2
    assert dataset.train.labels.dtype == np.int64
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.bad_files == ()
    for split in (dataset.train, dataset.test):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert path.parent.name == dataset.class_names[label]


def test_hidden_and_other_files_are_ignored(split_folder: Path) -> None:
    before = load_dataset(str(split_folder), seed=0)
    add_images(split_folder / "train" / "sea", ".hidden.png")
    add_images(split_folder / "train" / ".cache", "x.png")
    (split_folder / "train" / "sea" / "notes.txt").write_text("notes")
    (split_folder / "train" / "sea" / "folder.png").mkdir()
    assert load_dataset(str(split_folder), seed=0).digest == before.digest


def test_a_run_says_what_is_passed_over(
    split_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load_dataset(str(split_folder), seed=0)
    assert "passed over" not in caplog.text
    add_images(split_folder / "val" / "sea", *(f"{i}.png" for i in range(5)))
    (split_folder / "train" / "sea" / "notes.txt").write_text("notes")
    with caplog.at_level(logging.INFO):
        load_dataset(str(split_folder), seed=0)
    assert (
        f"passed over in {split_folder}: 5 images in folders beside train/ and test/, 1 .txt, "
        "1 folders beside train/ and test/"
    ) in caplog.messages


def test_nested_folders_belong_to_their_class(split_folder: Path) -> None:
    before = load_dataset(str(split_folder), seed=0)
    sea = split_folder / "train" / "sea"
    add_images(sea / "2024" / "march", "a.jpg", "b.png", seed=5)
    dataset = load_dataset(str(split_folder), seed=0)
    assert dataset.train.names == (
        "Hill/a.jpg", "Hill/b.png", "Hill/c.JPG", "sea/a.jpg", "sea/b.png", "sea/c.JPG",
        "sea/2024/march/a.jpg", "sea/2024/march/b.png",
    )  # fmt: skip
    assert dataset.train.labels.tolist() == [0] * 3 + [1] * 5
    assert dataset.digest != before.digest
    # The same files flat are other names, and so another data set.
    for path in (sea / "2024" / "march").iterdir():
        path.rename(sea / f"march_{path.name}")
    assert load_dataset(str(split_folder), seed=0).digest not in (dataset.digest, before.digest)


def test_images_in_folders_of_folders_only_are_refused(tmp_path: Path) -> None:
    # Are the classes a and b, or abbey and barn? SUN397 is laid out so.
    for name in ("a/abbey", "b/barn"):
        add_images(tmp_path / "sun" / name, "1.png", "2.png")
    with pytest.raises(DataError, match=r"in folders of folders only, the first is a/abbey/1\.png"):
        load_dataset(str(tmp_path / "sun"), seed=0)


def test_one_name_in_two_unicode_spellings_is_one_class(split_folder: Path) -> None:
    # Macs decompose: e and an accent. Linux tools compose.
    add_images(split_folder / "train" / "caf\u00e9", "\u00fc.png", "b.png")
    add_images(split_folder / "test" / "cafe\u0301", "u\u0308.png")
    dataset = load_dataset(str(split_folder), seed=0)
    assert dataset.class_names == ("Hill", "caf\u00e9", "sea")
    assert dataset.test.names[2] == "caf\u00e9/\u00fc.png"
    assert dataset.test.labels.tolist() == [0, 0, 1, 2, 2]
    (split_folder / "train" / "caf\u00e9").rename(split_folder / "train" / "cafe\u0301")
    assert load_dataset(str(split_folder), seed=0).digest == dataset.digest


@pytest.mark.parametrize(
    "names", [("caf\u00e9", "cafe\u0301"), ("sea/\u00fc.png", "sea/u\u0308.png")]
)
def test_two_spellings_side_by_side_are_refused(split_folder: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        place = split_folder / "train" / name
        folder = place.parent if place.suffix else place
        add_images(folder, place.name if place.suffix else "a.png", seed=number)
    with pytest.raises(DataError, match="the same text in two Unicode spellings: rename or join"):
        load_dataset(str(split_folder), seed=0)


def test_plain_folder_is_split_with_the_seed(plain_folder: Path) -> None:
    first, again, reseeded = (load_dataset(str(plain_folder), seed=seed) for seed in (1, 1, 2))
    assert Counter(first.train.labels.tolist()) == {0: 14, 1: 7}
    assert Counter(first.test.labels.tolist()) == {0: 6, 1: 3}
    assert set(first.train.paths).isdisjoint(first.test.paths)
    assert (first.train.paths, first.digest) == (again.train.paths, again.digest)
    assert first.train.paths != reseeded.train.paths
    assert first.digest != reseeded.digest


def test_digest_ignores_the_place_and_sees_all_else(split_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(split_folder, copy)
    digest = load_dataset(str(split_folder), seed=0).digest
    assert len(digest) == 16
    assert load_dataset(str(copy), seed=5).digest == digest
    sea = copy / "train" / "sea"
    (sea / "a.jpg").rename(sea / "z.jpg")
    renamed = load_dataset(str(copy), seed=0).digest
    (sea / "z.jpg").rename(sea / "a.jpg")
    add_images(sea, "b.png", seed=9)
    changed = load_dataset(str(copy), seed=0).digest
    shutil.copy(split_folder / "train" / "sea" / "b.png", sea / "b.png")
    (sea / "b.png").rename(copy / "test" / "sea" / "b.png")
    moved = load_dataset(str(copy), seed=0).digest
    assert len({digest, renamed, changed, moved}) == 4


def test_digest_is_made_of_split_class_name_and_content(split_folder: Path) -> None:
    lines = sorted(
        f"{path.relative_to(split_folder).as_posix()}/{sha256(path.read_bytes()).hexdigest()}"
        for path in split_folder.rglob("*.*")
    )
    expected = sha256("\n".join(lines).replace("/", "\t").encode()).hexdigest()[:16]
    assert load_dataset(str(split_folder), seed=0).digest == expected


def test_subset_keeps_order() -> None:
    split = split_of([Path(name) for name in "abc"], np.array([0, 1, 2]))
    part = split.subset([2, 0])
    assert part.paths == (Path("c"), Path("a"))
    assert part.labels.tolist() == [2, 0]
    assert part.digests == (split.digests[2], split.digests[0])
    assert len(split.subset([])) == 0


def no_folder(root: Path) -> None:
    shutil.rmtree(root)


def no_images(root: Path) -> None:
    for path in list(root.rglob("*.*")):
        path.unlink()


def empty_class(root: Path) -> None:
    (root / "train" / "lake").mkdir()


def empty_test_class(root: Path) -> None:
    (root / "test" / "lake").mkdir()
    add_images(root / "train" / "lake", "a.png")


def class_in_test_only(root: Path) -> None:
    add_images(root / "test" / "lake", "a.png")
    add_images(root / "train" / "sea", "q.png")


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "sea")
    shutil.rmtree(root / "test" / "sea")


def few_images(root: Path) -> None:
    for path in list((root / "train").rglob("*.*"))[1:]:
        path.unlink()


def all_single(root: Path) -> None:
    shutil.rmtree(root / "test")
    for name in ("sea", "Hill"):
        add_images(root / name, "only.png")
    shutil.rmtree(root / "train")


def capitals(root: Path) -> None:
    (root / "train").rename(root / "Train")
    (root / "test").rename(root / "Test")


def other_encoding(root: Path) -> None:
    (root / "train" / "sea" / "b.png").rename(root / "train" / "sea" / os.fsdecode(b"\xe9.png"))


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def nothing_in_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    (root / "test").mkdir()


@pytest.mark.parametrize(
    ("spoil", "named", "says"),
    [
        (no_folder, "photos", "there is no folder"),
        (no_images, "photos", "no images in"),
        (empty_class, "train/lake", "has no usable image"),
        (empty_test_class, "test/lake", "has no usable image"),
        (class_in_test_only, "test/lake", "is in test but not in train"),
        (one_class, "photos", "at least two classes"),
        (few_images, "photos", "has 1 for 2 classes"),
        (all_single, "photos", "two images or more"),
        (capitals, "photos", "must be written train/ and test/"),
        (other_encoding, r"train/sea/\udce9.png", "names in UTF-8 are required"),
        (no_test, "photos/train", "but no test/"),
        (nothing_in_test, "photos/test", "no images in"),
    ],
)
def test_bad_folders_give_one_line(split_folder: Path, spoil, named: str, says: str) -> None:
    spoil(split_folder)
    with pytest.raises(DataError, match=says) as caught:
        load_dataset(str(split_folder), seed=0)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)  # what is wrong: what to do


@pytest.mark.parametrize("data", ["", "  ", "x" * 5000, "~no-such-user/photos"])
def test_names_that_can_be_no_data_set(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(data, seed=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    if data.strip():
        monkeypatch.setenv("SCENETRACK_DATA", data)
        with pytest.raises(InputError) as caught:
            load_dataset("mit8", seed=0)
        assert len(str(caught.value)) < 600


def test_a_loop_of_links_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="data folder is required"):
        load_dataset(str(tmp_path / "loop"), seed=0)


def test_class_in_train_only_is_allowed_and_reported(
    split_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_dataset(str(split_folder), seed=0)
    assert caplog.text == ""
    add_images(split_folder / "train" / "lake", "a.png")
    dataset = load_dataset(str(split_folder), seed=0)
    assert "classes without test images (training only): lake" in caplog.text
    assert dataset.class_names == ("Hill", "lake", "sea")
    assert set(dataset.test.labels.tolist()) == {0, 2}


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


def test_unreadable_image_is_found_at_once(split_folder: Path) -> None:
    bad = truncate(split_folder / "test" / "sea" / "e.bmp")
    with pytest.raises(DataError, match="--skip-bad") as caught:
        load_dataset(str(split_folder), seed=0)
    assert str(bad) in str(caught.value)


def test_dangling_link_is_not_ignored(split_folder: Path) -> None:
    link = split_folder / "test" / "sea" / "link.png"
    link.symlink_to(split_folder / "gone.png")
    with pytest.raises(DataError, match=r"link\.png"):
        load_dataset(str(split_folder), seed=0)


def test_skip_bad_goes_on_and_lists(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = truncate(split_folder / "train" / "sea" / "b.png")
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(str(split_folder), seed=0, skip_bad=True)
    assert [path for path, _ in dataset.bad_files] == [bad]
    assert dataset.bad_files[0][1]
    assert bad not in dataset.train.paths
    assert len(dataset.train) == 5
    assert [r.getMessage() for r in caplog.records] == [f"leaving out 1 unreadable image {bad}"]
    assert load_images(dataset.train.paths, 4).shape == (5, 4, 4, 3)


def test_skip_bad_does_not_empty_a_class(split_folder: Path) -> None:
    for path in (split_folder / "test" / "sea").iterdir():
        truncate(path)
    with pytest.raises(DataError, match="test/sea has no usable image"):
        load_dataset(str(split_folder), seed=0, skip_bad=True)


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_stratified_split_properties(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels)
    kept, held = stratified_split(array, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept)
    assert held.tolist() == sorted(held)
    for label in set(labels):
        total, out = int((array == label).sum()), int((array[held] == label).sum())
        assert out < total
        if fraction == 0 or total == 1:
            assert out == 0
        else:
            assert out >= 1
            assert abs(out - fraction * total) <= 1
    np.testing.assert_array_equal(held, stratified_split(array, fraction, seed)[1])


def test_stratified_split_draws_with_the_seed() -> None:
    labels = np.zeros(100, dtype=np.int64)
    held = {tuple(stratified_split(labels, 0.3, seed)[1]) for seed in range(5)}
    assert len(held) == 5
    assert {len(each) for each in held} == {30}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 3.0])
def test_stratified_split_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction"):
        stratified_split(np.array([0, 1]), fraction, 0)


def test_manifest_is_the_published_split() -> None:
    counts = Counter((entry.split, entry.class_name) for entry in read_manifest())
    train = {name: count for (split, name), count in counts.items() if split == "train"}
    test = {name: count for (split, name), count in counts.items() if split == "test"}
    assert train == {
        "coast": 244,
        "forest": 227,
        "highway": 184,
        "inside_city": 214,
        "mountain": 260,
        "Opencountry": 292,
        "street": 212,
        "tallbuilding": 248,
    }
    assert test == {
        "coast": 116,
        "forest": 101,
        "highway": 76,
        "inside_city": 94,
        "mountain": 114,
        "Opencountry": 118,
        "street": 80,
        "tallbuilding": 108,
    }
    assert len({entry.path for entry in read_manifest()}) == 2688


def test_compare_tells_missing_extra_and_different() -> None:
    manifest = [ManifestEntry("train", "sea", name, f"hash {name}") for name in "abc"]
    found = [("train/sea/a", "hash a"), ("train/sea/b", "other"), ("test/sea/d", "hash d")]
    comparison = compare(found, manifest)
    assert comparison.missing == ("train/sea/c",)
    assert comparison.extra == ("test/sea/d",)
    assert comparison.different == ("train/sea/b",)
    assert not comparison.same
    assert compare([(entry.path, entry.sha256) for entry in manifest], manifest).same


@pytest.fixture
def small_mit8(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the official split's place, found through SCENETRACK_DATA."""
    facts = catalog._examine(catalog.list_folder(split_folder))
    manifest = tuple(
        ManifestEntry(*path.relative_to(split_folder).parts, facts[path].digest) for path in facts
    )
    monkeypatch.setattr(catalog, "read_manifest", lambda: manifest)
    monkeypatch.setenv("SCENETRACK_DATA", str(split_folder))
    return split_folder


def test_mit8_by_environment(small_mit8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset("mit8", seed=0)
    assert (dataset.name, dataset.root) == ("mit8", small_mit8)
    small_mit8.rename(small_mit8.parent / "MIT_split")
    monkeypatch.setenv("SCENETRACK_DATA", str(small_mit8.parent))
    above = load_dataset("mit8", seed=0)
    assert above.root.name == "MIT_split"
    assert above.digest == dataset.digest


@pytest.mark.parametrize("left", ["nothing", "a part"])
def test_incomplete_mit8_in_the_cache_says_what_to_delete(
    small_mit8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.delenv("SCENETRACK_DATA")
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "mit8"
    if left == "nothing":
        cached.mkdir(parents=True)
    else:
        shutil.copytree(small_mit8, cached)
        shutil.rmtree(cached / "train" / "sea")
        (cached / "train" / "sea").mkdir()
    with pytest.raises(DataError, match=f"delete {cached} to download it again") as caught:
        load_dataset("mit8", seed=0)
    lacking = 10 if left == "nothing" else 3
    assert f"split of 10 files: {lacking} missing" in str(caught.value)


@pytest.mark.parametrize("below", ["", "MIT_split"])
def test_mit8_in_the_cache(
    small_mit8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    monkeypatch.delenv("SCENETRACK_DATA")
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    shutil.copytree(small_mit8, tmp_path / "cache" / "mit8" / below)
    assert load_dataset("mit8", seed=0).root == tmp_path / "cache" / "mit8" / below


def test_wrong_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENETRACK_DATA", str(tmp_path))
    with pytest.raises(DataError, match="SCENETRACK_DATA must name"):
        load_dataset("mit8", seed=0)


def test_mit8_with_other_files_is_refused(small_mit8: Path) -> None:
    removed = small_mit8 / "train" / "sea" / "a.jpg"
    removed.rename(removed.with_name("new.jpg"))
    with pytest.raises(DataError, match=r"of 10 files: 1 missing, the first is train/sea/a\.jpg"):
        load_dataset("mit8", seed=0)
    removed.with_name("new.jpg").rename(removed)
    add_images(removed.parent, "more.png")
    with pytest.raises(DataError, match=r"1 not part of it, .*train/sea/more\.png"):
        load_dataset("mit8", seed=0)


def test_mit8_with_other_bytes_is_reported(
    small_mit8: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = load_dataset("mit8", seed=0).digest
    add_images(small_mit8 / "train" / "sea", "b.png", seed=4)
    with caplog.at_level(logging.WARNING):
        changed = load_dataset("mit8", seed=0)
    assert "1 of 10 files" in caplog.text
    assert changed.digest != digest


@pytest.mark.realdata
def test_real_split() -> None:
    dataset = load_dataset("mit8", seed=0)
    assert (len(dataset.train), len(dataset.test)) == (1881, 807)
    assert dataset.class_names == (
        "Opencountry",
        "coast",
        "forest",
        "highway",
        "inside_city",
        "mountain",
        "street",
        "tallbuilding",
    )
    assert np.bincount(dataset.test.labels).tolist() == [118, 116, 101, 76, 94, 114, 80, 108]
    assert dataset.digest == "6dc369f338bd7e0d"
