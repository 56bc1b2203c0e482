"""The record of a network's training images in its file."""

from __future__ import annotations

import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from scenetrack.config import TrainMlpConfig
from scenetrack.networks.learnt_images import image_numbers, learnt_images, record_learnt_images
from scenetrack.networks.registry import build_network
from scenetrack.networks.training import load_model, save_model

DIGESTS = [sha256(str(number).encode()).hexdigest() for number in range(5)]


def test_a_network_says_what_it_has_learnt(tmp_path: Path) -> None:
    path = tmp_path / "network.keras"
    save_model(build_network(TrainMlpConfig(hidden=(4,), image_size=8), 2), path)
    assert learnt_images(path) is None
    record_learnt_images(path, [DIGESTS[3], DIGESTS[0], DIGESTS[3]])
    found = learnt_images(path)
    assert found is not None
    assert np.isin(image_numbers(DIGESTS), found).tolist() == [True, False, False, True, False]
    assert load_model(path).name == "mlp"


def test_numbers_are_the_first_64_bits() -> None:
    assert image_numbers(["ff" + "0" * 62, "0" * 15 + "1" + "f" * 48]).tolist() == [255 << 56, 1]


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_record_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scenetrack/learnt_images.npy", content)
    assert learnt_images(path) is None
    assert learnt_images(tmp_path / "none.keras") is None
