"""What is remembered of image files, and when it is not believed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.data import image_facts
from scenetrack.data.catalog import load_dataset
from scenetrack.data.image_facts import examine_images, read_unchanged
from scenetrack.data.images import load_images
from scenetrack.errors import DataError
from scenetrack.system import file_state
from scenetrack.system.file_state import FileState


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, for which files just written count as settled."""
    monkeypatch.setattr(file_state, "_TICK_NS", 0)
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def scene(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_scenes(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(scene(seed=index)).save(path)
    return paths


def test_examine_tells_size_mode_and_problem(tmp_path: Path, settled: Path) -> None:
    (good,) = save_scenes(tmp_path / "a", 1)
    bad = tmp_path / "a" / "bad.jpg"
    Image.fromarray(scene(64, 64)).save(bad, quality=95)
    bad.write_bytes(bad.read_bytes()[:-1000])
    facts = examine_images([bad, good, tmp_path / "a" / "gone.png", good])
    assert (facts[1].width, facts[1].height, facts[1].mode, facts[1].problem) == (40, 24, "RGB", "")
    assert len(facts[1].digest) == 64
    assert facts[3] == facts[1]
    assert "truncated" in facts[0].problem
    assert "No such file" in facts[2].problem


def test_examine_decodes_a_file_once(
    tmp_path: Path, settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save_scenes(tmp_path / "a")
    first = examine_images(paths)
    decoded: list[Path] = []
    examine = image_facts._examine
    monkeypatch.setattr(image_facts, "_examine", lambda path: decoded.append(path) or examine(path))
    assert examine_images(paths) == first
    assert decoded == []
    Image.fromarray(scene(5, 5, 9)).save(paths[1])
    again = examine_images(paths)
    assert decoded == [paths[1]]
    assert again[1].digest != first[1].digest
    # The same number of bytes at another time is another file as well.
    os.utime(paths[2], ns=(1, 1))
    examine_images(paths)
    assert decoded == [paths[1], paths[2]]


@pytest.mark.parametrize("content", ["", "[]", '{"pillow": "0"}', '{"files": {"0.png": 3}}'])
def test_damaged_facts_are_found_anew(tmp_path: Path, settled: Path, content: str) -> None:
    paths = save_scenes(tmp_path / "a")
    first = examine_images(paths)
    (cached,) = (settled / "facts").glob("*.json")
    cached.write_text(content)
    assert examine_images(paths) == first


def test_facts_that_are_a_folder_are_found_anew(tmp_path: Path, settled: Path) -> None:
    paths = save_scenes(tmp_path / "a")
    first = examine_images(paths)
    (cached,) = (settled / "facts").glob("*.json")
    cached.unlink()
    (cached / "below").mkdir(parents=True)
    assert examine_images(paths) == first
    assert cached.is_file()


def test_facts_of_another_shape_are_found_anew(tmp_path: Path, settled: Path) -> None:
    paths = save_scenes(tmp_path / "a")
    first = examine_images(paths)
    (cached,) = (settled / "facts").glob("*.json")
    content = json.loads(cached.read_text())
    assert content["files"].keys() == {"0.png", "1.png", "2.png"}
    content["files"]["0.png"]["facts"] = {"colour": "blue"}
    content["files"]["1.png"] = {}
    cached.write_text(json.dumps(content))
    assert examine_images(paths) == first


def bitmap(path: Path, value: int) -> None:
    """An uncompressed BMP: all of one size have the same number of bytes."""
    Image.new("RGB", (16, 16), (value, value, value)).save(path)


def overwritten(path: Path) -> None:
    bitmap(path, 200)


def replaced(path: Path) -> None:
    other = path.with_name("other.bmp")
    bitmap(other, 200)
    os.replace(other, path)


def copied_over(path: Path) -> None:
    other = path.with_name("other.bmp")
    bitmap(other, 200)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    shutil.copy2(other, path)
    other.unlink()


def folder_swapped(path: Path) -> None:
    other = path.parent.with_name("prepared")
    other.mkdir()
    bitmap(other / path.name, 200)
    os.utime(other / path.name, ns=(0, 0))
    path.parent.rename(path.parent.with_name("away"))
    other.rename(path.parent)


@pytest.mark.parametrize("change", [overwritten, replaced, copied_over, folder_swapped])
@pytest.mark.parametrize("since", [0, 1_000_000_000])
def test_new_files_of_the_same_size_and_time_give_the_new_pixels(
    tmp_path: Path, settled: Path, change: Callable[[Path], None], since: int
) -> None:
    # rsync -t, cp -p, unpacked reproducible archives and image layers set one time for all files.
    path = tmp_path / "photos" / "a.bmp"
    path.parent.mkdir()
    bitmap(path, 10)
    os.utime(path, ns=(since, since))
    assert np.unique(load_images([path], 8)).tolist() == [10]
    change(path)
    os.utime(path, ns=(since, since))
    assert np.unique(load_images([path], 8)).tolist() == [200]
    assert examine_images([path])[0].digest == sha256(path.read_bytes()).hexdigest()


def test_a_file_changed_just_now_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second change within one tick of the file system's clock would leave no trace.
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.bmp"
    bitmap(path, 10)
    examine_images([path])
    (cached,) = (tmp_path / "cache" / "facts").glob("*.json")
    assert json.loads(cached.read_text())["files"] == {}


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bmp"
    bitmap(path, 10)
    decode = image_facts.open_image

    def decode_and_change(file: object) -> Image.Image:
        bitmap(path, 200)
        return decode(file)

    monkeypatch.setattr(image_facts, "open_image", decode_and_change)
    before = sha256(path.read_bytes()).hexdigest()
    assert examine_images([path])[0].digest == before
    monkeypatch.setattr(image_facts, "open_image", decode)
    assert examine_images([path])[0].digest == sha256(path.read_bytes()).hexdigest() != before


def test_pixels_are_kept_under_the_digest_of_their_bytes_only(
    tmp_path: Path, settled: Path
) -> None:
    paths = save_scenes(tmp_path / "a")
    digests = [found.digest for found in examine_images(paths)]
    original = paths[1].read_bytes()
    Image.fromarray(scene(seed=9)).save(paths[1])
    with pytest.raises(DataError, match=r"stay as they are .*1\.png was changed"):
        load_images(paths, 16, digests)
    paths[1].unlink()
    with pytest.raises(DataError, match=r"stay as they are .*1\.png cannot be read any more"):
        read_unchanged(paths[1], digests[1])
    paths[1].write_bytes(original)
    np.testing.assert_array_equal(load_images(paths, 16, digests), load_images(paths, 16))


def test_a_data_set_keeps_the_digests_of_its_pixels(tmp_path: Path, settled: Path) -> None:
    for name in ("coast", "forest"):
        save_scenes(tmp_path / "photos" / name)
    train = load_dataset(str(tmp_path / "photos"), seed=0).train
    found = examine_images(train.paths)
    assert train.digests == tuple(facts.digest for facts in found)
    assert train.subset([1]).digests == train.digests[1:2]


def test_a_state_remembered_by_another_system_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bmp"
    bitmap(path, 10)
    state = FileState.of(path)
    assert state.is_that_of(state.numbers())
    assert not state.is_that_of(state.numbers()[:2])
    monkeypatch.setattr(file_state.os, "name", "nt")  # whose ctime is the time of creation
    assert not state.is_that_of(state.numbers())


def test_a_time_in_the_future_is_not_settled(tmp_path: Path, settled: Path) -> None:
    path = tmp_path / "a.bmp"
    bitmap(path, 10)
    os.utime(path, ns=(2**62, 2**62))
    assert not FileState.of(path).is_settled
