"""The demo data set: scenes of the eight MIT classes, drawn once and cached as JPEG files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from tqdm import tqdm

from scenetrack.data.demo.built import (
    draw_highway,
    draw_inside_city,
    draw_street,
    draw_tallbuilding,
)
from scenetrack.data.demo.canvas import Canvas
from scenetrack.data.demo.natural import draw_coast, draw_forest, draw_mountain, draw_open_country
from scenetrack.system.files import cache_dir, discard, lock, replacing

logger = logging.getLogger(__name__)

SCENES: Mapping[str, Callable[[Canvas], None]] = MappingProxyType(
    {
        "Opencountry": draw_open_country,
        "coast": draw_coast,
        "forest": draw_forest,
        "highway": draw_highway,
        "inside_city": draw_inside_city,
        "mountain": draw_mountain,
        "street": draw_street,
        "tallbuilding": draw_tallbuilding,
    }
)
TRAIN_PER_CLASS, TEST_PER_CLASS = 40, 20
# Names the cached folder: increase it whenever a drawing changes.
_VERSION = "2"
_SEED = 20_001
_JPEG_QUALITY = 92


def draw_scene(class_name: str, index: int) -> Image.Image:
    """Draw scene number ``index`` of a class: RGB, 256 x 256, the same pixels at every call."""
    order = list(SCENES).index(class_name)
    canvas = Canvas(np.random.default_rng([_SEED, order, index]))
    SCENES[class_name](canvas)
    return canvas.finish()


def demo_folder() -> Path:
    """Return the folder of the demo data (train/CLASS/*.jpg, test/CLASS/*.jpg).

    The scenes are drawn on first use, and again if a file is missing.

    Raises:
        InputError: the cache cannot be written.
    """
    target = cache_dir("demo") / f"v{_VERSION}"
    if _is_complete(target):
        return target
    with lock(target):
        if not _is_complete(target):
            logger.info("drawing the demo data into %s", target)
            with replacing(target) as folder:
                _draw_all(folder)
                discard(target)
    return target


def _is_complete(folder: Path) -> bool:
    return all((folder / _path(name, index)).is_file() for name, index in _scenes())


def _scenes() -> list[tuple[str, int]]:
    """Return (class name, index) of every scene of the data set."""
    return [(name, index) for name in SCENES for index in range(TRAIN_PER_CLASS + TEST_PER_CLASS)]


def _path(name: str, index: int) -> Path:
    part = "train" if index < TRAIN_PER_CLASS else "test"
    return Path(part, name, f"{name}_{index:03d}.jpg")


def _draw_all(folder: Path) -> None:
    for name, index in tqdm(_scenes(), desc="drawing the demo data", unit="img", disable=None):
        path = folder / _path(name, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(name, index).save(path, quality=_JPEG_QUALITY)
