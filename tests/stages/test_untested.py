"""``--test false``: settings are tried without a look at the test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from workplace import TINY_MLP, TINY_PATCHES, Workplace, flags

from scenetrack import cli
from scenetrack.workflow import dataset as inputs

TINY_SIFT = {"image_size": "32", "step": "8", "bin_sizes": "4", "codebook_size": "6", "pca": "8"}
SETTINGS = {
    "train_mlp": TINY_MLP | {"epochs": "3"},
    "layer_svm": TINY_MLP | {"epochs": "3", "kernels": "linear"},
    "patch_bow": TINY_PATCHES | {"epochs": "2", "kernels": "linear"},
    "handcrafted": TINY_SIFT | {"kernels": "linear"},
}
VALIDATED_BY = {"handcrafted": "cv/accuracy"}


@pytest.mark.parametrize("stage", SETTINGS)
def test_no_pixel_of_the_test_images_is_asked_for(
    here: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    asked: list[str] = []
    plain: Callable[..., np.ndarray] = inputs.load_images

    def recorded(paths: Sequence[object], *others: object) -> np.ndarray:
        asked.extend(map(str, paths))
        return plain(paths, *others)

    monkeypatch.setattr(inputs, "load_images", recorded)
    words = ["--data", str(here.data), "--experiment", f"untested {stage}", *flags(SETTINGS[stage])]
    assert cli.main([stage, *words, "--test", "false"]) == 0, capsys.readouterr().err
    assert asked
    assert not [path for path in asked if "/test/" in path]
    (run,) = here.runs(f"untested {stage}")
    figure = VALIDATED_BY.get(stage, "val/accuracy")
    assert 0 <= run.data.metrics[figure] <= 1
    of_children = [child.data.metrics for child in here.children(run).values()]
    for metrics in (run.data.metrics, *of_children):
        assert not [name for name in metrics if name.startswith("test/")]
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == [
        f"{here.data.name}/train"
    ]
    assert "which were left alone" in capsys.readouterr().out


def test_several_seeds_are_for_test_figures(
    here: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["handcrafted", "--repeats", "2", "--test", "false"]) == 2
    assert "repeats measures the spread of test results" in capsys.readouterr().err
