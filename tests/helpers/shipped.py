"""Finished methods as files, and whether such a file says what its run once logged."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import CLASSES, PER_CLASS

from scenetrack import cli, tracking
from scenetrack.data.decoding import decode_image
from scenetrack.graphs.runtime import OnnxModel


def bundled(*words: str) -> OnnxModel:
    """The file that ``scenetrack bundle`` writes."""
    assert cli.main(["bundle", *words, "-o", "scene.onnx"]) == 0
    return OnnxModel("scene.onnx")


def logged_predictions(run_id: str) -> Iterator[tuple[str, str, float, float]]:
    """File, predicted class, its score and probability, as the run logged them when tested."""
    with tracking.run_file(run_id, "predictions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["file"], row["predicted"], float(row["score"]), float(row["probability"])


def check_against_the_run(model: OnnxModel, run_id: str, folder: Path) -> None:
    """The graph on files as they are, 48 px and unresized, says what the run once logged."""
    classes = json.loads(model.metadata["classes"])
    rows = list(logged_predictions(run_id))
    assert len(rows) == len(CLASSES) * PER_CLASS["test"]
    for file, predicted, score, probability in rows:
        result = model.run(images=decode_image(folder / "test" / file)[None])
        assert classes[int(result["label"][0])] == predicted
        assert float(result["scores"].max()) == pytest.approx(score, rel=1e-5, abs=1e-5)
        assert float(result["probabilities"].max()) == pytest.approx(probability, abs=1e-5)
