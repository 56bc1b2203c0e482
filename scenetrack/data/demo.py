"""The embedded data set: drawn scenes of the eight classes, made once and kept in the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from tqdm import tqdm

from scenetrack.data.canvas import Canvas
from scenetrack.data.nature import draw_coast, draw_forest, draw_mountain, draw_open_country
from scenetrack.data.town import draw_highway, draw_inside_city, draw_street, draw_tallbuilding
from scenetrack.storage import cache_dir, lock, replacing

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
# Names the cached folder: to be raised whenever a drawing changes.
_VERSION = "2"
_SEED = 20_001
_JPEG_QUALITY = 92


def draw_scene(class_name: str, index: int) -> Image.Image:
    """Scene number ``index`` of a class: RGB, 256 x 256, the same pixels at every call."""
    order = list(SCENES).index(class_name)
    canvas = Canvas(np.random.default_rng([_SEED, order, index]))
    SCENES[class_name](canvas)
    return canvas.finish()


def demo_folder() -> Path:
    """The folder of the demo data (train/CLASS/*.jpg, test/CLASS/*.jpg), drawn on first use.

    Raises:
        InputError: the cache cannot be written.
    """
    target = cache_dir("demo") / f"v{_VERSION}"
    if target.is_dir():
        return target
    with lock(target):
        if not target.is_dir():
            logger.info("drawing the demo data into %s", target)
            with replacing(target) as folder:
                _draw_all(folder)
    return target


def _draw_all(folder: Path) -> None:
    per_class = TRAIN_PER_CLASS + TEST_PER_CLASS
    scenes = [(name, index) for name in SCENES for index in range(per_class)]
    for name, index in tqdm(scenes, desc="drawing the demo data", unit="img", disable=None):
        part = "train" if index < TRAIN_PER_CLASS else "test"
        place = folder / part / name / f"{name}_{index:03d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        draw_scene(name, index).save(place, quality=_JPEG_QUALITY)
