"""The first notebook runs on the demo data, shows its pictures and tells what the stage tells."""

from __future__ import annotations

import ast
import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_patch_bow.ipynb"
METHODS = ["end to end", "bag of words linear svm", "bag of words chi2 svm"]
PICTURES = 10


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shows_a_picture(source: str) -> bool:
    """Whether the cell's value is a picture."""
    last = ast.parse(source).body[-1]
    return isinstance(last, ast.Expr) and ast.unparse(last).startswith("Image(")


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def accuracies(text: str) -> dict[str, str]:
    """The accuracy with its interval of each method in a printed comparison."""
    return dict(re.findall(r"^(\S.*?\S) {2,}(\d.*?%  \d.*?%) ", text, re.MULTILINE))


@pytest.fixture(scope="module")
def executed(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook after a run in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp("notebook")
    temporary = tmp_path_factory.mktemp("temporary")
    notebook = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCENETRACK_CACHE", str(shared_cache))
        patch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
        patch.setenv("TMPDIR", str(temporary))
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        client = NotebookClient(
            notebook, timeout=240, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return notebook, folder


class TestAsStored:
    def test_is_valid_and_without_outputs(self) -> None:
        notebook = read()
        nbformat.validate(notebook)
        for cell in code_cells(notebook):
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "execution" not in cell.metadata

    def test_uses_the_package_and_defines_nothing(self) -> None:
        trees = [ast.parse(cell.source) for cell in code_cells(read())]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert [node for node in nodes if isinstance(node, definitions)] == []
        modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        assert len([name for name in modules if name.startswith("scenetrack.")]) >= 10
        imported = {
            alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
        }
        assert not {name for name in imported if name.startswith("_")}
        assert "matplotlib" not in {name.split(".")[0] for name in imported | modules}

    def test_says_that_demo_figures_are_no_results(self) -> None:
        opening = read().cells[0].source
        assert "drawn scenes, no photographs" in opening
        assert "no results" in opening

    def test_names_no_place_of_a_machine(self) -> None:
        text = NOTEBOOK.read_text(encoding="utf-8")
        assert not re.search(r"/(home|work|tmp|Users|root)/", text)


@pytest.mark.slow
class TestExecuted:
    def test_every_picture_is_shown(self, executed: tuple[Any, Path]) -> None:
        cells = [cell for cell in code_cells(executed[0]) if shows_a_picture(cell.source)]
        assert len(cells) == PICTURES
        for cell in cells:
            (data,) = [output.data for output in cell.outputs if "data" in output]
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 10

    def test_nothing_is_said_besides(self, executed: tuple[Any, Path]) -> None:
        outputs = [output for cell in code_cells(executed[0]) for output in cell.outputs]
        reported = [output for output in outputs if output.get("name") == "stderr"]
        assert reported == []

    def test_the_stage_comes_to_the_same_table(self, executed: tuple[Any, Path]) -> None:
        tables = [accuracies(printed(cell)) for cell in code_cells(executed[0])]
        by_hand, tracked = [table for table in tables if table]
        assert sorted(by_hand) == sorted(METHODS)
        assert tracked == by_hand

    def test_the_table_of_runs_lists_parent_and_children(self, executed: tuple[Any, Path]) -> None:
        (table,) = [output.data["text/html"] for output in code_cells(executed[0])[-2].outputs]
        rows = re.findall(r"<td>([^<]*)</td>\s*<td>(True|False)</td>\s*<td>([A-Z]+)</td>", table)
        assert rows[0] == ("patch_bow demo 256,128 bag_of_words", "False", "FINISHED")
        assert rows[1:] == [(name, "True", "FINISHED") for name in METHODS]

    def test_ends_with_one_file(self, executed: tuple[Any, Path]) -> None:
        shown = printed(code_cells(executed[0])[-1])
        assert "scene.onnx: bag of words" in shown
        assert "every label equal" in shown

    def test_leaves_nothing_in_the_working_folder(self, executed: tuple[Any, Path]) -> None:
        assert list(executed[1].iterdir()) == []
