"""Bundles on the real test images, and in an environment with numpy and ONNX Runtime only."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_pipelines import dense_network, patch_pipeline, scene_encoder, scenes, svm

from scenetrack.config import KERNELS
from scenetrack.data.catalog import load_dataset
from scenetrack.data.dataset import Split
from scenetrack.data.images import load_images
from scenetrack.delivery.bundle import build_bundle, verify_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.encoders import ImageEncoder
from scenetrack.graphs.runtime import OnnxModel

REAL_SIZE = 64
RUN = """
import importlib.metadata, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession("scene.onnx", providers=["CPUExecutionProvider"])
label, scores = session.run(["label", "scores"], {"images": numpy.load("images.npy")})
numpy.savez("found.npz", label=label, scores=scores)
print(*sorted(item.name for item in importlib.metadata.distributions()))
"""


@pytest.mark.slow
def test_a_fresh_environment_needs_numpy_and_onnx_runtime(tmp_path: Path) -> None:
    pipeline = patch_pipeline("chi2")
    images, _ = scenes(9)
    onnx.save(build_bundle(pipeline, {}), tmp_path / "scene.onnx")
    np.save(tmp_path / "images.npy", images)
    venv.create(tmp_path / "env", with_pip=False, clear=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # Their own dependencies are left out too: protobuf, flatbuffers and packaging are not needed.
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")]
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([sys.executable, *install, *pinned], check=True, timeout=280)
    done = subprocess.run(
        [python, "-I", "-c", RUN],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "numpy onnxruntime\n", "")
    scores = pipeline.scores(images)
    with np.load(tmp_path / "found.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["label"], scores.argmax(axis=1))
        np.testing.assert_allclose(found["scores"], scores, atol=1e-5)


def encoded(network: onnx.ModelProto, split: Split) -> tuple[ImageEncoder, np.ndarray]:
    """An encoder of a split's descriptors, and the histograms of its images."""
    images = load_images(split.paths, REAL_SIZE)
    session = OnnxModel(network.SerializeToString(), device="cpu")
    values = session.predict(images, 64)["descriptors"]
    local = values.reshape(len(images), -1, values.shape[-1])
    rows = local.reshape(-1, local.shape[-1])
    drawn = np.random.default_rng(0).choice(len(rows), 20_000, replace=False)
    encoder = scene_encoder(rows[drawn], local.shape[1], words=256, pca=24)
    return encoder, encoder.encode(local)


@pytest.mark.realdata
def test_the_real_test_images_at_the_largest_c() -> None:
    """Through a network that nobody trained: how descriptors round does not depend on it."""
    dataset = load_dataset("mit8", seed=0)
    network = dense_network(patch=12, stride=4, width=48)
    encoder, histograms = encoded(network, dataset.train)
    images = load_images(dataset.test.paths, REAL_SIZE)
    for kernel in KERNELS:
        classifier = svm(
            histograms, dataset.train.labels, kernel, preparation="square_root", c=100.0
        )
        pipeline = ScenePipeline(
            network, dataset.class_names, REAL_SIZE, "mean", encoder, classifier
        )
        report = verify_bundle(build_bundle(pipeline, {}), pipeline, images)
        assert report.images == 807
        # The graph's scores are float64: what is left is the rounding of its output to float32.
        largest = np.abs(pipeline.scores(images)).max()
        assert report.max_difference <= largest * np.finfo(np.float32).eps, kernel
