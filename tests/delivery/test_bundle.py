"""Bundles: the pipeline's verdicts in one file, evidence against brute force, and refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from small_pipelines import (
    CLASSES,
    SIZE,
    classes_of,
    image_pipeline,
    metadata,
    patch_pipeline,
    scenes,
)

from scenetrack.config import AGGREGATIONS, KERNELS
from scenetrack.delivery.bundle import build_bundle, verify_bundle, with_evidence
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import ExportError, ModelError
from scenetrack.graphs.builder import IR_VERSION, OPSET
from scenetrack.graphs.runtime import WORKSPACE, OnnxModel

kernels = pytest.mark.parametrize("kernel", ["", *KERNELS])


def opened(model: onnx.ModelProto) -> OnnxModel:
    return OnnxModel(model.SerializeToString(), device="cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return scenes(23, seed=5)[0]


@kernels
def test_patch_methods_agree(kernel: str, images: np.ndarray) -> None:
    pipeline = patch_pipeline(kernel, c=100.0)
    bundle = build_bundle(pipeline, {})
    report = verify_bundle(bundle, pipeline, images)
    assert (report.images, report.batch_sizes) == (23, (1, 16))
    assert report.max_difference < 1e-5
    outputs = opened(bundle).run(images=images)
    scores = pipeline.scores(images)
    assert {name: (v.dtype, v.shape) for name, v in outputs.items()} == {
        "probabilities": (np.float32, (23, 3)),
        "label": (np.int64, (23,)),
        "scores": (np.float32, (23, 3)),
    }
    np.testing.assert_array_equal(outputs["label"], scores.argmax(axis=1))
    assert len(set(outputs["label"])) > 1
    powers = np.exp(scores / 0.7)
    shares = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], shares, atol=1e-6)


@kernels
def test_whole_image_methods_agree(kernel: str, images: np.ndarray) -> None:
    pipeline = image_pipeline(kernel, temperature=2.5)
    assert verify_bundle(build_bundle(pipeline, {}), pipeline, images).images == 23


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregations_agree(aggregation: str, images: np.ndarray) -> None:
    pipeline = patch_pipeline(aggregation=aggregation)
    report = verify_bundle(build_bundle(pipeline, {}), pipeline, images)
    assert report.max_difference <= 1e-5


def test_an_encoder_without_pca_agrees(images: np.ndarray) -> None:
    pipeline = patch_pipeline("chi2", pca=0)
    report = verify_bundle(build_bundle(pipeline, {}), pipeline, images)
    assert report.max_difference <= 1e-5


def test_images_of_other_sizes_are_resized_inside(images: np.ndarray) -> None:
    bundle = opened(build_bundle(patch_pipeline("rbf"), {}))
    large = np.random.default_rng(0).integers(0, 256, (2, 37, 91, 3), np.uint8)
    small = [
        np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        for image in large
    ]
    expected = bundle.run(images=np.stack(small))
    for name, values in bundle.run(images=large).items():
        np.testing.assert_array_equal(values, expected[name])


def test_one_image_scores_as_in_any_batch(images: np.ndarray) -> None:
    bundle = opened(build_bundle(patch_pipeline("intersection"), {}))
    together = bundle.run(images=images)["scores"]
    alone = [bundle.run(images=image[None])["scores"][0] for image in images]
    np.testing.assert_array_equal(together, alone)


def test_what_the_file_says_of_itself() -> None:
    pipeline = patch_pipeline("linear")
    bundle = build_bundle(pipeline, {"method": "bag of words", "source_run": "abc"})
    reported = metadata(bundle)
    assert classes_of(bundle) == list(CLASSES)
    assert reported["kind"] == "bundle"
    assert (reported["image_size"], reported["temperature"]) == (str(SIZE), "0.7")
    assert (reported["method"], reported["source_run"], reported["evidence"]) == (
        "bag of words",
        "abc",
        "evidence",
    )
    assert (reported["patch_size"], reported["stride"], reported["layer"]) == ("8", "4", "hidden")
    assert metadata(build_bundle(image_pipeline(), {}))["evidence"] == ""
    assert [(item.domain, item.version) for item in bundle.opset_import] == [("", OPSET)]
    assert bundle.ir_version == IR_VERSION
    (images,) = bundle.graph.input
    assert images.name == "images"
    assert [d.dim_value for d in images.type.tensor_type.shape.dim] == [0, 0, 0, 3]


def test_the_bound_of_memory_counts_what_became_inner_tensors() -> None:
    pipeline = patch_pipeline("linear")
    onnx.helper.set_model_props(pipeline.network, {WORKSPACE: "1000"})
    # 5 x 5 patches of 6 values and 3 logits, float32.
    assert metadata(build_bundle(pipeline, {}))[WORKSPACE] == str(1000 + 4 * 25 * 9)
    assert WORKSPACE not in metadata(build_bundle(patch_pipeline("linear"), {}))


def test_a_network_of_an_older_opset_is_converted(images: np.ndarray) -> None:
    pipeline = image_pipeline("rbf")
    older = onnx.version_converter.convert_version(pipeline.network, 18)
    older.ir_version = 9
    pipeline = replace(pipeline, network=older)
    bundle = build_bundle(pipeline, {})
    assert [item.version for item in bundle.opset_import] == [OPSET]
    verify_bundle(bundle, pipeline, images)


class TestVerification:
    """An error of any kind is found, and said in one line."""

    def bent(self, name: str, pipeline: ScenePipeline) -> onnx.ModelProto:
        """A bundle of ``pipeline`` in which one constant is a little off."""
        bundle = build_bundle(pipeline, {})
        (constant,) = (item for item in bundle.graph.initializer if item.name == name)
        values = numpy_helper.to_array(constant) * (1 + 1e-4)
        constant.CopyFrom(numpy_helper.from_array(np.asarray(values), name))
        return bundle

    @pytest.mark.parametrize("name", ["svm/dual", "svm/intercept", "temperature"])
    def test_a_constant_that_is_off(self, name: str, images: np.ndarray) -> None:
        pipeline = patch_pipeline("rbf")
        with pytest.raises(ExportError, match="must give the labels of its pipeline") as caught:
            verify_bundle(self.bent(name, pipeline), pipeline, images)
        assert "\n" not in str(caught.value)

    def test_another_method(self, images: np.ndarray) -> None:
        bundle = build_bundle(patch_pipeline("linear"), {})
        with pytest.raises(ExportError, match="of 23 labels differ"):
            verify_bundle(bundle, patch_pipeline("chi2"), images)

    def test_scores_that_are_no_numbers(self, images: np.ndarray) -> None:
        pipeline = patch_pipeline("linear")
        classifier = replace(pipeline.classifier, intercept=np.full(3, np.nan))
        broken = replace(pipeline, classifier=classifier)
        with pytest.raises(ExportError, match="by nan"):
            verify_bundle(build_bundle(broken, {}), broken, images)


def left_out(pipeline: ScenePipeline, image: np.ndarray) -> np.ndarray:
    """The evidence by brute force: each patch taken out of the histogram, one after the other."""
    local = pipeline.session.run(images=image[None])["descriptors"]
    rows = pipeline.encoder.project(local.reshape(-1, local.shape[-1]))
    words = pipeline.encoder.encoder.assign(rows)
    counts = np.bincount(words, minlength=len(pipeline.encoder.encoder.codebook_))
    before = pipeline.classifier.predict_scores([counts / len(words)])
    lost = []
    for word in words:
        fewer = counts - (np.arange(len(counts)) == word)
        lost.append(before[0] - pipeline.classifier.predict_scores([fewer / len(words)])[0])
    return np.reshape(lost, (*local.shape[1:3], -1))


class TestEvidence:
    @pytest.mark.parametrize("kernel", KERNELS)
    def test_it_is_what_the_score_loses_without_the_patch(
        self, kernel: str, images: np.ndarray
    ) -> None:
        pipeline = patch_pipeline(kernel)
        evidence = opened(with_evidence(build_bundle(pipeline, {}))).run(images=images)["evidence"]
        assert (evidence.dtype, evidence.shape) == (np.float32, (23, 5, 5, 3))
        for index in (0, 1, 2):
            expected = left_out(pipeline, images[index])
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(evidence[index], expected, atol=1e-6)

    def test_a_words_only_patch_leaves_an_empty_bin(self) -> None:
        """The square root of what is left must be 0, not that of a rounding error."""
        pipeline = patch_pipeline("linear")
        flat = np.zeros((1, SIZE, SIZE, 3), np.uint8)
        flat[0, 8:16, 8:16] = 255
        evidence = opened(with_evidence(build_bundle(pipeline, {}))).run(images=flat)["evidence"]
        np.testing.assert_allclose(evidence[0], left_out(pipeline, flat[0]), atol=1e-7)

    def test_end_to_end_it_is_the_patchs_logits_over_their_mean(self, images: np.ndarray) -> None:
        pipeline = patch_pipeline()
        evidence = opened(with_evidence(build_bundle(pipeline, {}))).run(images=images)["evidence"]
        logits = pipeline.session.run(images=images)["logits"]
        expected = logits - logits.mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(evidence, expected, atol=1e-6)

    @kernels
    def test_the_other_outputs_stay_and_the_bundle_too(
        self, kernel: str, images: np.ndarray
    ) -> None:
        bundle = build_bundle(patch_pipeline(kernel), {})
        before = bundle.SerializeToString()
        explained = opened(with_evidence(bundle)).run(images=images)
        assert bundle.SerializeToString() == before
        for name, values in opened(bundle).run(images=images).items():
            np.testing.assert_array_equal(values, explained[name])

    def test_it_costs_nothing_where_nobody_asks(self, tmp_path: Path) -> None:
        """ONNX Runtime leaves the whole computation out of the graph that it runs."""
        import onnxruntime

        def nodes(model: onnx.ModelProto, name: str) -> int:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(tmp_path / name)
            options.log_severity_level = 4
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            kept = onnx.load(tmp_path / name).graph
            return sum(node.op_type == "Scan" for node in kept.node)

        bundle = build_bundle(patch_pipeline("linear"), {})
        assert nodes(bundle, "plain.onnx") == 1  # the visual words, image by image
        assert nodes(with_evidence(bundle), "explained.onnx") == 2

    def test_asking_twice_is_asking_once(self) -> None:
        once = with_evidence(build_bundle(patch_pipeline("linear"), {}))
        assert with_evidence(once).SerializeToString() == once.SerializeToString()

    def test_methods_without_patches_have_none(self) -> None:
        with pytest.raises(ModelError, match="a method on patches is required"):
            with_evidence(build_bundle(image_pipeline("rbf"), {}))


def test_explaining_needs_no_scikit_learn() -> None:
    """``predict --explain`` of a bundle starts in a moment."""
    heavy = "{'sklearn', 'scipy', 'keras'}"
    code = f"import sys, scenetrack.delivery.bundle; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


ALONE = """
import importlib.abc, sys

class NothingElse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        root = name.partition(".")[0]
        if root not in sys.stdlib_module_names | {"numpy", "onnxruntime"}:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, NothingElse())
import numpy as np, onnxruntime

model, images, target = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
outputs = session.run(None, {"images": np.load(images)})
np.savez(target, **dict(zip([item.name for item in session.get_outputs()], outputs)))
assert not {"onnx", "sklearn", "keras", "tensorflow", "PIL", "scenetrack"} & set(sys.modules)
"""


@pytest.mark.parametrize("kernel", ["", "rbf", "chi2"])
def test_it_runs_where_there_is_only_numpy_and_onnx_runtime(
    kernel: str, images: np.ndarray, tmp_path: Path
) -> None:
    pipeline = patch_pipeline(kernel)
    onnx.save(build_bundle(pipeline, {}), tmp_path / "scene.onnx")
    np.save(tmp_path / "images.npy", images)
    names = ["scene.onnx", "images.npy", "found.npz"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    scores = pipeline.scores(images)
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["label"], scores.argmax(axis=1))
        np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
        expected = pipeline.probabilities(scores)
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
