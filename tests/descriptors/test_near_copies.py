"""Near copies are found, and images that are merely alike are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from scenetrack import cli
from scenetrack.data.demo.scenes import demo_folder
from scenetrack.descriptors import near_copies as module
from scenetrack.descriptors.near_copies import near_copies, near_copies_report
from scenetrack.errors import InputError


@pytest.fixture(scope="module")
def originals() -> list[Path]:
    """Drawn scenes of one class, which are alike."""
    return sorted((demo_folder() / "train" / "coast").iterdir())[:12]


def digests_of(paths: Sequence[Path]) -> list[str]:
    return [sha256(path.read_bytes()).hexdigest() for path in paths]


def reencoded(image: Image.Image, path: Path) -> None:
    image.save(path, "JPEG", quality=50)


def halved(image: Image.Image, path: Path) -> None:
    image.resize((image.width // 2, image.height // 2)).save(path, "PNG")


def mirrored(image: Image.Image, path: Path) -> None:
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, "PNG")


def cropped(image: Image.Image, path: Path) -> None:
    edge = image.width // 40
    image.crop((edge, 0, image.width, image.height - edge)).save(path, "PNG")


def brightened(image: Image.Image, path: Path) -> None:
    ImageEnhance.Brightness(image).enhance(1.1).save(path, "PNG")


@pytest.mark.parametrize("change", [reencoded, halved, mirrored, cropped, brightened])
def test_a_changed_copy_is_found(
    tmp_path: Path, originals: list[Path], change: Callable[[Image.Image, Path], None]
) -> None:
    change(Image.open(originals[3]).convert("RGB"), tmp_path / "copy")
    paths = [*originals, tmp_path / "copy"]
    found = near_copies(paths, digests_of(paths))
    assert [(copy.first, copy.second) for copy in found] == [(3, 12)]
    assert found[0].mirrored == (change is mirrored)
    assert 0.93 <= found[0].similarity <= 1.0001


def test_exact_copies_are_left_to_the_digests(originals: list[Path]) -> None:
    paths = [*originals, originals[0]]
    assert near_copies(paths, digests_of(paths)) == []


def test_images_without_any_contrast_are_like_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, grey in zip(paths, (10, 200), strict=True):
        Image.new("RGB", (64, 64), (grey,) * 3).save(path)
    assert near_copies(paths, digests_of(paths)) == []


def test_too_many_images_are_refused(
    monkeypatch: pytest.MonkeyPatch, originals: list[Path]
) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 3)
    with pytest.raises(InputError, match=r"at most 3 images\. Received: 12"):
        near_copies(originals, ["x"] * 12)


def test_the_report_begins_with_those_across_splits(
    tmp_path: Path, originals: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for place, original in enumerate(originals):
        part = "train" if place < 8 else "test"
        folder = tmp_path / "data" / part / "coast"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(original, folder / f"{place}{original.suffix}")
        forest = sorted((demo_folder() / "train" / "forest").iterdir())[place]
        folder = tmp_path / "data" / part / "forest"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(forest, folder / forest.name)
    halved(Image.open(originals[1]).convert("RGB"), tmp_path / "data/train/coast/half.png")
    mirrored(Image.open(originals[2]).convert("RGB"), tmp_path / "data/test/coast/mirror.png")
    text = near_copies_report(tmp_path / "data")
    head, first, second = text.splitlines()
    assert head == "near copies: 2, 1 of them across splits"
    assert "test/coast/mirror.png (across splits, mirrored, similarity" in first
    assert "train/coast/half.png (similarity" in second
    assert cli.main(["data", "check", str(tmp_path / "data"), "--near-copies"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(text)


def test_hashes_are_those_of_the_library(originals: list[Path]) -> None:
    image = Image.open(originals[0]).convert("RGB").resize((128, 128))
    import imagehash

    found = module._hashes(np.asarray(image)[None])
    assert int(found[0]) == int(str(imagehash.phash(image)), 16)
