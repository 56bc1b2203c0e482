"""Prefetching: the pixels of load_images, in order, within bounds, stopped at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.data import prefetch as ahead_module
from scenetrack.data.decoding import quiet_decoding
from scenetrack.data.images import load_images
from scenetrack.data.prefetch import read_ahead

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(30):
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (20 + index, 33, 3), np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_decoding():
        yield


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_same_pixels_as_load_images_in_order(files: list[str], threads: int, ahead: int) -> None:
    read = list(read_ahead(files, 16, threads=threads, ahead=ahead, memory=MEGABYTE))
    assert [path for path, _ in read] == files
    expected = load_images([Path(path) for path in files], 16)
    np.testing.assert_array_equal(np.stack([image for _, image in read]), expected)


def test_bad_files_are_reported_in_order(files: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(Path(files[0]).read_bytes()[:-200])
    paths = [files[0], str(broken), str(tmp_path), files[1], str(tmp_path / "none"), str(truncated)]
    read = dict(read_ahead(paths, 16, threads=2, ahead=3, memory=MEGABYTE))
    assert list(read) == paths
    problems = [read[path] for path in paths if isinstance(read[path], str)]
    assert problems[:3] == [
        "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image",
        "Is a directory",
        "No such file or directory",
    ]
    assert len(problems) == 4
    assert isinstance(read[files[1]], np.ndarray)


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(files: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    read = dict(read_ahead([str(pipe), files[0]], 16, threads=1, ahead=2, memory=MEGABYTE))
    assert read[str(pipe)] == "no regular file"
    assert isinstance(read[files[0]], np.ndarray)


def test_draws_no_more_than_it_may(files: list[str]) -> None:
    drawn = []

    def source() -> Iterator[str]:
        for path in files:
            drawn.append(path)
            yield path

    with closing(read_ahead(source(), 16, threads=2, ahead=5, memory=MEGABYTE)) as images:
        for taken in range(1, 9):
            next(images)
            assert len(drawn) == taken + 5


def test_closed_early_leaves_no_thread(files: list[str]) -> None:
    before = threading.active_count()
    images = read_ahead(files, 16, threads=2, ahead=20, memory=MEGABYTE)
    next(images)
    assert threading.active_count() > before
    images.close()
    assert threading.active_count() == before


def test_pictures_in_decoding_share_the_memory(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for one image of these sizes: no two are decoded at a time, and none is left out."""
    at_once, most = 0, 0
    guard = threading.Lock()
    upright = ahead_module.upright_rgb

    def counted(image: Image.Image) -> Image.Image:
        nonlocal at_once, most
        with guard:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with guard:
            at_once -= 1
        return upright(image)

    monkeypatch.setattr(ahead_module, "upright_rgb", counted)
    for memory, expected in ((20 * 33 * 10, {1}), (MEGABYTE, {2, 3})):
        most = 0
        read = list(read_ahead(files, 16, threads=3, ahead=9, memory=memory))
        assert len(read) == len(files)
        assert most in expected


def test_odd_names(files: list[str], tmp_path: Path) -> None:
    path = os.path.join(tmp_path, os.fsdecode(b"\xff\n=.png"))
    os.link(files[0], path)
    ((name, image),) = read_ahead([path], 16, threads=1, ahead=1, memory=MEGABYTE)
    assert name == path
    assert isinstance(image, np.ndarray)
