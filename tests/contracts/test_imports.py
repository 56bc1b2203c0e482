"""Imports go one way through the package, and what executes on load stays out of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "scenetrack"

# The ground plan: a room may import from itself and from the rooms before it.
ROOMS = (
    "errors",
    "records",
    "config",
    "system",
    "cache",
    "data",
    "graphs",
    "networks",
    "export",
    "descriptors",
    "encoders",
    "classifiers",
    "figures",
    "evaluation",
    "delivery",
    "tracking",
    "tuning",
    "workflow",
    "stages",
    "api",
    "cli",
    "__main__",
)
ONLY_IMPORTER = {"mlflow": "tracking", "onnxruntime": "graphs"}
EXECUTE_ON_LOAD = {"pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the tree, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def used_at_run_time(tree: ast.Module) -> ast.Module:
    """The tree without ``if TYPE_CHECKING`` blocks: annotations alone tie nothing together."""

    class Pruned(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return None
            return self.generic_visit(node)

    return ast.fix_missing_locations(Pruned().visit(tree))


def own_imports(file: Path) -> set[str]:
    """The package's modules that a file imports, as full names."""
    names = {module_name(path) for path in FILES}
    found = set()
    for name in imported(used_at_run_time(ast.parse(file.read_text(encoding="utf-8")))):
        # ``from scenetrack.graphs.builder import GraphBuilder`` names an attribute of the module.
        candidates = [name, name.rpartition(".")[0]]
        found.update(next(([c] for c in candidates if c in names), []))
    return found - {"scenetrack"}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_place_in_the_plan() -> None:
    modules = {module_name(file) for file in FILES} - {"scenetrack"}
    assert {room(module) for module in modules} <= set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_a_room_imports_only_from_above(file: Path) -> None:
    module = module_name(file)
    if module == "scenetrack":
        assert own_imports(file) == set()
        return
    place = ROOMS.index(room(module))
    below = {name for name in own_imports(file) if ROOMS.index(room(name)) > place}
    assert below == set()


def test_no_circle_within_a_room() -> None:
    graph = {module_name(file): own_imports(file) for file in FILES}
    while True:
        free = {name for name, needs in graph.items() if not needs & graph.keys() - {name}}
        if not free:
            break
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert graph == {}


@pytest.mark.parametrize(("library", "importer"), ONLY_IMPORTER.items())
def test_only_one_room_imports(library: str, importer: str) -> None:
    importers = {
        file.relative_to(PACKAGE).parts[0]
        for file in FILES
        for name in imported(ast.parse(file.read_text(encoding="utf-8")))
        if name.split(".")[0] == library
    }
    assert importers == {importer}


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_nothing_executes_on_load(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in imported(tree)} & EXECUTE_ON_LOAD == set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile"}, f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "safe_mode"}:
            allowed = {"allow_pickle": False, "safe_mode": True}[node.arg]
            assert isinstance(node.value, ast.Constant), f"line {node.value.lineno}"
            assert node.value.value is allowed, f"line {node.value.lineno}"


class TestTheTestItself:
    """The rules above hold only if the reading of imports sees every form of them."""

    def test_sees_imports_in_functions(self) -> None:
        tree = ast.parse("def f():\n    from a.b import c\n    import d.e as g\n")
        assert set(imported(tree)) == {"a.b.c", "d.e"}

    def test_leaves_out_annotations_only(self) -> None:
        source = "if TYPE_CHECKING:\n    import a\nif other:\n    import b\n"
        assert set(imported(used_at_run_time(ast.parse(source)))) == {"b"}


def test_json_is_read_in_one_place() -> None:
    """``json.loads`` alone ends in a RecursionError on deeply nested text, as any may be."""
    readers = [file for file in FILES if "json.load" in file.read_text(encoding="utf-8")]
    assert [module_name(file) for file in readers] == ["scenetrack.system.foreign"]
