"""The montage of a data set's samples, whatever the number of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.data.catalog import load_dataset
from scenetrack.errors import ModelError
from scenetrack.records import Figure
from scenetrack.workflow import dataset as inputs


@pytest.mark.parametrize(
    ("classes", "each", "images", "columns", "title"),
    [
        (2, 5, 8, 4, ""),
        (8, 1, 8, 4, ""),
        (9, 4, 27, 6, ""),
        (12, 3, 36, 6, ""),
        (30, 3, 36, 6, "12 of 30 classes"),
    ],
)
def test_samples_of_any_number_of_classes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    each: int,
    images: int,
    columns: int,
    title: str,
) -> None:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    names = [f"class {k:02d}" for k in range(classes)]
    for name in names:
        for part, count in (("train", each), ("test", 1)):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (4, 4)).save(folder / f"{index}.png")
    asked: list[tuple[np.ndarray, list[str], int, str]] = []

    def keep(
        pictures: np.ndarray, titles: list[str], columns: int, *, title: str, name: str
    ) -> Figure:
        asked.append((pictures, titles, columns, title))
        return Figure(name, b"")

    monkeypatch.setattr(inputs, "draw_montage", keep)
    inputs._samples(load_dataset(str(tmp_path / "photos"), seed=0))
    pictures, titles, shown_columns, shown_title = asked[0]
    assert len(pictures) == len(titles) == images
    assert (shown_columns, shown_title) == (columns, title)
    assert titles == sorted(titles)
    assert {names[0], names[-1]} <= set(titles) <= set(names)


@pytest.mark.parametrize("seed", ["x", "", "-1", "1.5", "1_0", "nan", "9" * 5000, str(2**31)])
def test_a_seed_that_was_edited_in_the_run(seed: str, tmp_path: Path) -> None:
    for data in ("", str(tmp_path)):
        with pytest.raises(ModelError, match="the run's setting seed cannot be used") as caught:
            inputs.dataset_of_run({"seed": seed}, data)
        assert "\n" not in str(caught.value)
