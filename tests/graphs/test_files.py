"""Safe reading of ONNX files: which are opened and which are refused, always in one line."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz_onnx
import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from scenetrack.errors import ModelError
from scenetrack.graphs import files as onnx_files
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.files import check_model_file, one_line, read_model
from scenetrack.graphs.runtime import OnnxModel

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
INPUT = np.ones((2, 4), np.float32)
FUZZED = 2000


def product(name: str = "product") -> ModelProto:
    """x float32 [N, 4] -> y [N, 3], x @ WEIGHTS."""
    builder = GraphBuilder(name)
    x = builder.input("x", np.float32, ["n", 4])
    y = builder.node("MatMul", x, builder.constant("weights", WEIGHTS))
    builder.output("y", y, np.float32, ["n", 3])
    return builder.build({"layer": "hidden_1"})


def put_outside(tensor: TensorProto, location: str, **entries: str) -> None:
    """Make a tensor say that its data lie at ``location``."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


def outside(location: str = "weights.bin", **entries: str) -> bytes:
    model = product()
    put_outside(model.graph.initializer[0], location, **entries)
    return model.SerializeToString()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a model, with its weights in a file, and a secret outside it."""
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(WEIGHTS.tobytes())
    return folder


def refusal(source: Path | str | bytes) -> str:
    """Return the error message of opening the source, the same by every function that opens it."""
    messages = set()
    ways: list[Callable[[Path | str | bytes], object]] = [
        check_model_file,
        read_model,
        lambda model: OnnxModel(model, device="cpu", threads=1),
    ]
    for opened in ways:
        with pytest.raises(ModelError) as caught:
            opened(source)
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message
    assert len(message) < 700
    return message


def problem(opened: Callable[[bytes], object], content: bytes) -> str:
    """The text of a ModelError, or nothing where the content can be opened."""
    try:
        opened(content)
    except ModelError as error:
        return str(error)
    return ""


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_was_checked_is_what_runs(tmp_path: Path) -> None:
    content = product().SerializeToString()
    path = put(tmp_path / "net.onnx", content)
    for source in (path, str(path), content):
        file = check_model_file(source)
        assert (file.content, file.folder) == (content, None)
        assert read_model(source).graph.name == "product"
        result = OnnxModel(source, device="cpu", threads=1).run(x=INPUT)["y"]
        np.testing.assert_array_equal(result, INPUT @ WEIGHTS)


class TestExternalData:
    @pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "deep/er/w.bin"])
    def test_within_the_folder_it_is_read(
        self, location: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        (folder / location).write_bytes(WEIGHTS.tobytes())
        path = put(folder / "net.onnx", outside(location, offset="0", length="48"))
        assert check_model_file(path).folder == folder.resolve()
        # Nothing depends on where the process runs.
        for place, source in ((folder.parent, path), (folder, Path("net.onnx"))):
            monkeypatch.chdir(place)
            result = OnnxModel(source, device="cpu", threads=1).run(x=INPUT)["y"]
            np.testing.assert_array_equal(result, INPUT @ WEIGHTS)

    def test_a_linked_model_counts_with_its_real_folder(self, folder: Path, tmp_path: Path) -> None:
        put(folder / "net.onnx", outside())
        link = tmp_path / "link.onnx"
        link.symlink_to(folder / "net.onnx")
        result = OnnxModel(link, device="cpu", threads=1).run(x=INPUT)["y"]
        np.testing.assert_array_equal(result, INPUT @ WEIGHTS)
        (folder / "weights.bin").rename(tmp_path / "weights.bin")
        assert "there is no file" in refusal(link)

    @pytest.mark.parametrize(
        "location",
        [
            "../secret.bin",
            "deep/../../secret.bin",
            "weights.bin/../weights.bin",
            "..\\secret.bin",
            "C:\\secret.bin",
            "C:secret.bin",
            "\\\\server\\secret.bin",
            "/etc/hostname",
            "link.bin",
            "linked/secret.bin",
            "circle.bin",
            "*/_ORT_MEM_ADDR_/*",
            "weights.bin\0",
            "x" * 5000,
        ],
    )
    def test_beyond_the_folder_it_is_refused(self, location: str, folder: Path) -> None:
        (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
        (folder / "linked").symlink_to(folder.parent)
        (folder / "circle.bin").symlink_to(folder / "circle.bin")
        message = refusal(put(folder / "net.onnx", outside(location)))
        assert "external data within the model's folder is required" in message

    def test_an_absolute_place_in_the_folder_is_refused(self, folder: Path) -> None:
        path = put(folder / "net.onnx", outside(str(folder / "weights.bin")))
        assert "do not trust this file" in refusal(path)

    @pytest.mark.parametrize("location", ["absent.bin", "", ".", "deep"])
    def test_missing_files_are_named(self, location: str, folder: Path) -> None:
        (folder / "deep").mkdir()
        message = refusal(put(folder / "net.onnx", outside(location)))
        assert "there is no file" in message
        assert str(folder / location) in message

    @pytest.mark.parametrize(
        "entries",
        [
            {"offset": "0", "length": "49"},
            {"offset": "1", "length": "48"},
            {"offset": "49"},
            {"offset": "-1"},
            {"length": "-48"},
            {"offset": "zero"},
            {"offset": str(2**70)},
        ],
    )
    def test_ranges_stay_in_the_file(self, entries: dict[str, str], folder: Path) -> None:
        message = refusal(put(folder / "net.onnx", outside(**entries)))
        assert "the data of tensor 'weights' reaches beyond" in message

    def test_a_second_place_is_no_way_out(self, folder: Path) -> None:
        model = ModelProto.FromString(outside())
        model.graph.initializer[0].external_data.add(key="location", value="../secret.bin")
        path = put(folder / "net.onnx", model.SerializeToString())
        assert "external data within the model's folder" in refusal(path)

    def test_a_tensor_without_a_place(self, folder: Path) -> None:
        model = product()
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL
        path = put(folder / "net.onnx", model.SerializeToString())
        assert "tensor 'weights' names no file" in refusal(path)

    def test_bytes_have_no_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        assert "give the model's path" in refusal(outside())


def tensors(message: object) -> Iterator[TensorProto]:
    """Every tensor in a message, found without knowing what holds it."""
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from tensors(part)


def everywhere() -> ModelProto:
    """A model with a tensor in every place where one can be."""
    model = product()

    def value(name: str) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])

    def sparse(name: str) -> onnx.SparseTensorProto:
        index = helper.make_tensor(f"{name}_indices", TensorProto.INT64, [1], [0])
        return helper.make_sparse_tensor(value(f"{name}_values"), index, [4])

    def node(name: str) -> NodeProto:
        made = helper.make_node("If", [], [name])  # the operator that may have any graph inside
        made.attribute.add(name="one", t=value(f"{name}_t"))
        made.attribute.add(name="many", tensors=[value(f"{name}_many")])
        made.attribute.add(name="sparse", sparse_tensor=sparse(f"{name}_sparse"))
        made.attribute.add(name="sparses", sparse_tensors=[sparse(f"{name}_sparses")])
        return made

    def graph(name: str) -> onnx.GraphProto:
        made = helper.make_graph([node(f"{name}_node")], name, [], [], [value(f"{name}_init")])
        made.sparse_initializer.append(sparse(f"{name}_sparse_init"))
        return made

    holder = node("top")
    holder.attribute.add(name="branch", g=graph("branch"))
    holder.attribute.add(name="branches", graphs=[graph("branches")])
    inner = graph("inner")
    holder.attribute[-1].graphs[0].node[0].attribute.add(name="deep", g=inner)
    model.graph.node.append(holder)
    model.graph.sparse_initializer.append(sparse("sparse_init"))
    model.training_info.add(initialization=graph("initialization"), algorithm=graph("algorithm"))
    return model


PLACES = [tensor.name for tensor in tensors(everywhere())]


@pytest.mark.parametrize("place", range(len(PLACES)), ids=PLACES)
def test_no_tensor_is_overlooked(place: int, folder: Path) -> None:
    model = everywhere()
    put_outside(list(tensors(model))[place], "../secret.bin")
    path = put(folder / "net.onnx", model.SerializeToString())
    with pytest.raises(ModelError, match="external data within the model's folder"):
        check_model_file(path)


def test_no_place_for_tensors_is_unknown() -> None:
    """A newer onnx that keeps tensors in new fields must not pass unseen; functions are refused."""
    reached: dict[str, set[str]] = {}

    def holds(message: Descriptor, above: tuple[str, ...]) -> bool:
        if message.name == "TensorProto":
            return True
        found = False
        for field in message.fields:
            part = field.message_type
            if part and part.name not in above and holds(part, (*above, part.name)):
                reached.setdefault(message.name, set()).add(field.name)
                found = True
        return found

    holds(ModelProto.DESCRIPTOR, ("ModelProto",))
    assert reached == {
        "ModelProto": {"graph", "functions", "training_info"},
        "TrainingInfoProto": {"initialization", "algorithm"},
        "GraphProto": {"node", "initializer", "sparse_initializer"},
        "FunctionProto": {"node", "attribute_proto"},
        "NodeProto": {"attribute"},
        "AttributeProto": {"t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs"},
        "SparseTensorProto": {"values", "indices"},
    }


class TestOperators:
    @pytest.mark.parametrize(
        "domain",
        [
            "ai.onnx.contrib",
            "com.microsoft.extensions",
            "trt.plugins",
            "com.microsoft",
            "ai.onnx.ml",
        ],
    )
    def test_custom_ones_are_refused(self, domain: str) -> None:
        model = product()
        model.graph.node.append(helper.make_node("Run", ["x"], ["z"], domain=domain))
        model.opset_import.append(helper.make_opsetid(domain, 1))
        message = refusal(model.SerializeToString())
        assert f"uses Run of {domain}" in message
        assert "libraries of custom operators are never loaded" in message

    def test_custom_ones_in_branches_are_refused(self) -> None:
        custom = helper.make_node("Run", [], ["z"], domain="mine")
        branch = helper.make_graph([custom], "branch", [], [])
        model = product()
        model.graph.node.append(helper.make_node("If", ["x"], ["w"], then_branch=branch))
        assert "uses Run of mine" in refusal(model.SerializeToString())

    def test_functions_are_refused(self) -> None:
        model = product()
        double = helper.make_node("Add", ["a", "a"], ["c"])
        opsets = [helper.make_opsetid("", 21)]
        model.functions.append(helper.make_function("own", "Twice", ["a"], ["c"], [double], opsets))
        assert "without functions is required" in refusal(model.SerializeToString())

    def test_compiled_graphs_are_refused(self) -> None:
        model = product()
        compiled = helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft")
        compiled.attribute.add(name="ep_cache_context", s=b"../engine.bin")
        model.graph.node.append(compiled)
        assert "EPContext" in refusal(model.SerializeToString())


def endless(x: str = "x") -> NodeProto:
    """Count for ever: a Loop without a bound whose condition stays true."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["value", "value"], ["sum"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
    )
    return helper.make_node("Loop", ["", "", x], ["end"], body=body)


def scanned(body: list[NodeProto], **attributes: object) -> NodeProto:
    """A Scan over the rows of x that hands each one on."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, None)
    nodes = [*body, helper.make_node("Identity", ["row"], ["same"])]
    graph = helper.make_graph(nodes, "body", [row], [same])
    return helper.make_node("Scan", ["x"], ["rows"], body=graph, num_scan_inputs=1, **attributes)


class TestOperatorsThatRunForEver:
    """Of the operators of ONNX only those that end, and say the same each time, are allowed."""

    def test_a_scan_over_rows_runs(self) -> None:
        model = product()
        model.graph.node.append(scanned([]))
        assert OnnxModel(model.SerializeToString(), device="cpu", threads=1).run(x=INPUT)

    @pytest.mark.parametrize(
        "node",
        [
            endless(),
            scanned([endless("row")]),
            scanned([scanned([])]),  # as many rounds as the rows' product
            scanned([], scan_input_directions=[1]),
            helper.make_node("Scan", ["x"], ["rows"], num_scan_inputs=0),  # with a state
            helper.make_node("SequenceMap", ["x"], ["rows"]),
            helper.make_node("Abs", ["x"], ["rows"], body=helper.make_graph([], "g", [], [])),
        ],
    )
    def test_what_repeats_without_a_bound_is_refused(self, node: NodeProto) -> None:
        model = product()
        model.graph.node.append(node)
        assert "may run for ever" in refusal(model.SerializeToString())

    def test_in_a_branch_it_is_refused_too(self) -> None:
        model = product()
        branch = helper.make_graph([endless()], "branch", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["w"], else_branch=branch))
        assert "contains Loop" in refusal(model.SerializeToString())

    @pytest.mark.parametrize("kind", ["RandomNormalLike", "Bernoulli", "SequenceConstruct"])
    def test_chance_and_sequences_are_refused(self, kind: str) -> None:
        model = product()
        model.graph.node.append(helper.make_node(kind, ["x"], ["w"]))
        assert f"contains {kind}" in refusal(model.SerializeToString())


class TestSizes:
    def test_files_over_the_bound(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = product().SerializeToString()
        path = put(tmp_path / "net.onnx", content)
        monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", len(content))
        check_model_file(path)
        monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", len(content) - 1)
        assert f"at most {len(content) - 1:,} bytes" in refusal(path)
        assert f"this model in memory has {len(content):,}" in refusal(content)

    def test_external_data_count_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = ModelProto.FromString(outside())
        model.graph.initializer.append(model.graph.initializer[0])
        model.graph.initializer[1].name = "again"
        content = model.SerializeToString()
        path = put(folder / "net.onnx", content)
        monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", len(content) + 48)
        check_model_file(path)
        monkeypatch.setattr(onnx_files, "MAX_MODEL_BYTES", len(content) + 47)
        assert "with its external data is required" in refusal(path)

    def test_large_files_are_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "holes.onnx"
        with path.open("wb") as file:
            file.truncate(onnx_files.MAX_MODEL_BYTES + 1)
        monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was opened"))
        assert "at most 2,147,483,648 bytes" in refusal(path)

    @pytest.mark.parametrize("dims", [[2**20, 2**20], [-4, 4]])
    def test_sparse_tensors_that_unpack_to_too_much(self, dims: list[int]) -> None:
        model = product()
        model.graph.sparse_initializer.add(dims=dims)
        assert "sparse" in refusal(model.SerializeToString())

    def test_nodes_are_counted_with_those_of_branches(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = product()
        model.graph.node.append(scanned([]))  # with MatMul, Identity and the one in its body
        content = model.SerializeToString()
        monkeypatch.setattr(onnx_files, "MAX_NODES", 4)
        check_model_file(content)
        monkeypatch.setattr(onnx_files, "MAX_NODES", 3)
        assert "at most 3 nodes is required, but this model in memory has 4" in refusal(content)


class TestVersions:
    def test_newer_opset(self) -> None:
        model = product()
        model.opset_import[0].version = 1000
        message = refusal(model.SerializeToString())
        assert "opset 1000: upgrade onnx and ONNX Runtime" in message

    def test_newer_format(self) -> None:
        model = product()
        model.ir_version = 1000
        assert "has IR version 1000 and opset 21" in refusal(model.SerializeToString())


class TestDamage:
    def test_empty_and_foreign_files(self, tmp_path: Path) -> None:
        for content in (b"", b"no model", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(1000)):
            message = refusal(put(tmp_path / "net.onnx", content))
            assert "a valid ONNX model is required, but" in message

    @pytest.mark.parametrize("kind", ["absent", "folder", "zero", "long", "pipe", "circle"])
    def test_what_is_no_file(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "net.onnx"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "circle":
            path.symlink_to(path)
        elif kind in ("zero", "long"):
            path = tmp_path / ("a\0b" if kind == "zero" else "x" * 5000)
        assert "an ONNX file is required, but there is none at" in refusal(path)

    def test_a_file_without_permission(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put(tmp_path / "net.onnx", product().SerializeToString())

        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(Path, "open", refused)
        assert refusal(path).endswith("net.onnx cannot be read: Permission denied")

    @pytest.mark.parametrize("size", [0, 47, 49, 96])
    def test_raw_data_of_another_size(self, size: int) -> None:
        model = product()
        model.graph.initializer[0].raw_data = bytes(size)
        message = refusal(model.SerializeToString())
        assert f"tensor 'weights' has {size} bytes, and its shape takes 48" in message

    @pytest.mark.parametrize("length", [2**31, 2**40, -2])
    def test_lengths_that_cannot_be(self, length: int) -> None:
        model = product()
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = length
        assert f"'x' has the shape [{length}, 4]" in refusal(model.SerializeToString())

    def test_outputs_may_have_any_number_of_dimensions(self) -> None:
        model = product()
        model.graph.output[0].type.tensor_type.ClearField("shape")
        content = model.SerializeToString()
        result = OnnxModel(content, device="cpu", threads=1).run(x=INPUT)["y"]
        np.testing.assert_array_equal(result, INPUT @ WEIGHTS)
        assert not read_model(content).graph.output[0].type.tensor_type.HasField("shape")

    def test_graphs_that_the_checker_refuses(self) -> None:
        model = product()
        model.graph.node[0].input.append("x")
        assert "cannot be read" in refusal(model.SerializeToString())

    def test_both_onnx_and_the_runtimes_own_format(self) -> None:
        """ONNX Runtime takes bytes with ORTM at the fifth place for a format of its own."""
        content = product().SerializeToString()
        # Field 3, of unknown length to ONNX before: the producer's version.
        disguised = b"\x1a\x06\x00\x00ORTM" + content
        assert disguised[4:8] == b"ORTM"
        result = OnnxModel(disguised, device="cpu", threads=1).run(x=INPUT)["y"]
        np.testing.assert_array_equal(result, INPUT @ WEIGHTS)

    def test_names_that_are_no_text(self) -> None:
        content = product().SerializeToString()
        for name in (b"MatMul", b"weights", b"layer", b"hidden_1", b"product"):
            damaged = content.replace(name, b"\xff" * len(name))
            assert damaged != content
            assert "\n" not in problem(
                lambda model: OnnxModel(model, device="cpu", threads=1), damaged
            )

    @given(st.binary(max_size=200))
    def test_any_bytes_give_a_model_or_one_line(self, content: bytes) -> None:
        assert "\n" not in problem(check_model_file, content)

    @given(st.data())
    def test_any_cut_of_a_model_gives_one_line(self, data: st.DataObject) -> None:
        content = product().SerializeToString()
        length = data.draw(st.integers(0, len(content) - 1))
        # A cut between two fields leaves a model with less in it.
        assert "\n" not in problem(check_model_file, content[:length])

    def test_damaged_models_never_end_the_process(self) -> None:
        """ONNX Runtime is C++: what crashes it must be found by a process that may crash."""
        script = Path(fuzz_onnx.__file__)
        root = Path(__file__).parents[2]
        result = subprocess.run(
            [sys.executable, str(script), "0", str(FUZZED)],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        last = "\n".join(result.stderr.splitlines()[-20:])
        assert result.returncode == 0, f"the model of the last seed ended the process:\n{last}"
        counts = json.loads(result.stdout)
        # Each way was taken, or the damage is too light or too heavy to tell anything.
        assert sum(counts.values()) == FUZZED
        assert min(counts["ran"], counts["refused"]) > FUZZED / 50
        assert counts["failed"] > 0


@pytest.mark.parametrize("kind", sorted(helper.get_all_tensor_dtypes()))
def test_bits_of_an_element(kind: int) -> None:
    """Against onnx, which packs what is smaller than a byte."""
    if kind == TensorProto.STRING:
        assert onnx_files._bits(kind) == 0
        return
    array = np.zeros(8, helper.tensor_dtype_to_np_dtype(kind))
    tensor = onnx.numpy_helper.from_array(array)
    assert tensor.data_type == kind
    assert 8 * len(tensor.raw_data) == 8 * onnx_files._bits(kind)


def test_bits_of_unknown_types() -> None:
    assert onnx_files._bits(TensorProto.UNDEFINED) == onnx_files._bits(1000) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : no such operator", "no such operator"),
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : /src/model.cc:340 f(const int&) "
            "it != end was false. Missing opset.\n",
            "Missing opset.",
        ),
        ("a\n b", "a b"),
        ("", ""),
    ],
)
def test_one_line_keeps_the_reason(text: str, expected: str) -> None:
    assert one_line(ValueError(text)) == expected


def test_one_line_keeps_the_end() -> None:
    shown = one_line(ValueError("x" * 500 + " the reason"))
    assert re.fullmatch("…x+ the reason", shown)
    assert len(shown) == 201
