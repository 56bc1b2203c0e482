"""``scenetrack patch_bow`` at several sizes, of several layers, with other encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import entities
from shipped import bundled, check_against_the_run
from workplace import PER_CLASS, TINY_PATCHES, Workplace, flags

from scenetrack import cli, tracking
from scenetrack.delivery.rows import from_json
from scenetrack.graphs.runtime import OnnxModel

TWO_SIZES = {
    **TINY_PATCHES,
    "scales": "1,0.5",
    "layer": "hidden_1,hidden_2",
    "encoder": "vlad",
    "kernels": "auto",
    "pca": "20",
}


@pytest.fixture(scope="module")
def sizes_run(workplace: Workplace, twins: object) -> entities.Run:
    """Patches at two sizes, described by two layers."""
    words = ["--data", str(workplace.data), "--experiment", "sizes", *flags(TWO_SIZES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace.root)
        patch.setenv("MLFLOW_TRACKING_URI", workplace.uri)
        patch.setenv("SCENETRACK_CACHE", str(workplace.cache))
        patch.setattr("scenetrack.workflow.encoding._FEWEST", 2000)
        assert cli.main(["patch_bow", *words]) == 0
    (run,) = workplace.runs("sizes")
    return run


def test_sizes_and_layers_are_described_together(here: Workplace, sizes_run: entities.Run) -> None:
    assert sizes_run.data.params["descriptor_layer"] == "hidden_1,hidden_2"
    assert sizes_run.data.metrics["features"] == int(TINY_PATCHES["codebook_size"]) * 20
    assert "encoder.npz" in here.artifacts(sizes_run)
    network = OnnxModel(tracking.resolve_onnx(sizes_run.info.run_id, "descriptors"))
    # 49 patches of the image of 32 px and 9 of that of 16 px.
    assert network.outputs["descriptors"][1:] == (49 + 9, 24 + 12)
    assert network.outputs["logits"][1:] == (49 + 9, 3)
    methods = here.children(sizes_run)
    assert set(methods) == {"end to end", "vlad linear svm"}
    for method in methods.values():
        assert method.data.tags["descriptor"] == "patch mlp hidden_1, hidden_2"
        assert method.data.metrics["test/accuracy"] > 0.7
    assert methods["vlad linear svm"].data.tags["encoder"] == "vlad"


@pytest.mark.parametrize("name", ["end to end", "vlad linear svm"])
def test_both_methods_ship_with_their_sizes(
    here: Workplace, sizes_run: entities.Run, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    method = here.children(sizes_run)[name]
    model = bundled(method.info.run_id)
    assert "batches of 1 and 16: every label equal" in capsys.readouterr().out
    assert model.metadata["evidence"] == ""
    check_against_the_run(model, method.info.run_id, here.data)
    # Patches of several sizes have no grid to lie in: what spoke for a class is found by covering.
    image = str(here.data / "test" / "columns" / "columns1.jpg")
    words = ["scene.onnx", image, "-o", "labels.csv", "--explain", "maps"]
    assert cli.main(["predict", *words]) == 0
    assert [path.name for path in Path("maps").iterdir()] == ["columns1.png"]


def test_a_run_is_found_by_predict(here: Workplace, sizes_run: entities.Run) -> None:
    """Without a bundle of its run one is made: its chosen method's."""
    words = [str(here.data / "test" / "bars"), "-o", "labels.jsonl"]
    assert cli.main(["predict", sizes_run.info.run_id, *words]) == 0
    rows = [from_json(line) for line in Path("labels.jsonl").read_bytes().splitlines()]
    assert len(rows) == PER_CLASS["test"]
    assert sum(row.top[0][0] == "bars" for row in rows) > PER_CLASS["test"] / 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pca": "37"}, "at most the 36 values of layer hidden_1, hidden_2. Received: pca=37"),
        ({"layer": "hidden_1,hidden_1"}, "each layer must be named once. Received: hidden_1,"),
        ({"scales": "1,0.2"}, "patch_size 8 is larger than image_size 6, the smallest of scales"),
        ({"scales": "1,1"}, "scales must give images of different sizes"),
        ({"encoder": "fisher_vector", "kernels": "chi2"}, "but fisher_vector gives them"),
    ],
)
def test_refused_in_one_line(
    here: Workplace,
    twins: object,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    said: str,
) -> None:
    words = ["--data", str(here.data), "--experiment", "refused", *flags(TWO_SIZES | changed)]
    assert cli.main(["patch_bow", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line
