"""The bundle of a finished method: the one of its run, or one built, verified and kept."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx

from scenetrack import __version__
from scenetrack.delivery.bundle import build_bundle, verify_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import ModelError
from scenetrack.system.files import cache_dir, file_sha256, replacing
from scenetrack.tracking import find_onnx, registered_onnx, resolve_model
from scenetrack.workflow.load_method import FinishedMethod, find_method, open_pipeline

logger = logging.getLogger(__name__)

_RANDOM_IMAGES = 32


def bundle_of(model: str) -> Path:
    """Return the bundle of ``model``: the one logged to its run, else one made now and kept.

    Args:
        model: a run id, a ``.keras`` file, or an address in MLflow (``runs:/`` or ``models:/``).

    Raises:
        InputError: it does not exist, or cannot be bundled.
        ExportError: the graph differs from the method in Python.
    """
    logged = _addressed(model)
    if logged:
        return logged
    found = find_method(model)
    logged = find_onnx(found.run.id, "bundle") if found.run else None
    if logged:
        logger.info("reusing the bundle of run %s (%s)", found.run and found.run.id, found.name)
        return logged
    target = cache_dir("bundles") / f"{_key(found)}.onnx"
    if target.is_file():
        logger.info("reusing %s", target)
        return target
    pipeline = open_pipeline(found, None, "cpu")
    graph = build_method(found, pipeline)
    verify_bundle(graph, pipeline, random_images(pipeline.image_size))
    with replacing(target) as temporary:
        onnx.save(graph, temporary)
    logger.info("bundled %s as %s", found.name, target)
    return target


def _addressed(model: str) -> Path | None:
    """Return the bundle at an address in MLflow; None for another kind of model."""
    if model.startswith("models:/"):
        return registered_onnx(model)
    run_id, _, name = model.removeprefix("runs:/").partition("/")
    if not model.startswith("runs:/") or name != "bundle":
        return None
    logged = find_onnx(run_id, name)
    if logged is None:
        raise ModelError(f"run {run_id} has no bundle: make it with scenetrack bundle {run_id}")
    return logged


def build_method(found: FinishedMethod, pipeline: ScenePipeline) -> onnx.ModelProto:
    """Return the bundle of ``found``, not verified, with what it is made of in its metadata."""
    source = found.run.id if found.run else Path(found.model).name
    return build_bundle(
        pipeline, {"method": found.name, "source_run": source, "scenetrack": __version__}
    )


def random_images(size: int) -> np.ndarray:
    """Draw noise and smooth colours by turns: uint8 [32, size, size, 3]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_RANDOM_IMAGES, size, size, 3)).astype(np.uint8)
    images[::2] = rng.integers(0, 256, (_RANDOM_IMAGES // 2, 1, 1, 3))
    ramp = np.linspace(0, 1, size)[:, None]
    images[::4] = (images[::4] * ramp[:, None]).astype(np.uint8)
    return images


def _key(found: FinishedMethod) -> str:
    """Digest the run or the file, and the version of the package."""
    source = found.run.id if found.run else file_sha256(resolve_model(found.model, ""))
    return hashlib.sha256(f"{source} {__version__}".encode()).hexdigest()[:32]
