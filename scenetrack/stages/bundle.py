"""A finished method as one verified ONNX file: written where asked, and logged to its run."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from scenetrack import __version__
from scenetrack.config import BundleConfig
from scenetrack.data.catalog import SceneDataset
from scenetrack.data.images import load_images
from scenetrack.delivery.bundle import BundleReport, build_bundle, verify_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import DataError, ExportError, InputError, ModelError
from scenetrack.evaluation import PREDICTIONS, read_predictions
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.files import cache_dir, file_sha256, printable, replacing
from scenetrack.tracking import find_onnx, log_bundle, registered_onnx, resolve_model, run_file
from scenetrack.workflow.dataset import check_device, dataset_of_run, onnx_target
from scenetrack.workflow.evaluation import file_names
from scenetrack.workflow.latency import milliseconds
from scenetrack.workflow.load_method import FinishedMethod, find_method, open_pipeline

logger = logging.getLogger(__name__)

_RANDOM_IMAGES = 32
# Other processors and GPUs compute descriptors with other last digits, and one that lies between
# two words then goes to the other. Noise of 1e-5 in every value of a descriptor, which is more,
# moved the scores of 160 images by at most 0.01, where they vary by 0.7.
TIE = 0.02


def bundle(config: BundleConfig) -> None:
    """Write the file, log it to its run, and print what it is and how it was verified.

    Raises:
        InputError: the run, the method, the data or the file cannot be used.
        ExportError: the graph differs from the method in Python, or this from what the run said
            when it was tested; nothing is written.
    """
    if not config.run:
        raise InputError("a run id or .keras file is required. Received: none; name one")
    check_device(config)
    path = onnx_target(config.output)
    found = find_method(config.run, config.method)
    dataset = dataset_of_run(found.params, config.data)
    pipeline = open_pipeline(found, dataset, config.device)
    is_own = _check_dataset(found, pipeline, dataset)
    if dataset:
        images = load_images(dataset.test.paths, pipeline.image_size)
    else:
        images = _random_images(pipeline.image_size)
    model = _build(found, pipeline)
    report = verify_bundle(model, pipeline, images)
    comparison = _check_said(found, pipeline, dataset, report.scores) if dataset and is_own else ""
    with replacing(path) as temporary:
        onnx.save(model, temporary)
    print(_description(found, pipeline, path))
    print(_verification(report, dataset) + comparison)
    if dataset:
        print(_accuracy(found, path, images, dataset, is_own=is_own))
    print(_latency(path, pipeline, images[:1]))
    print(_logged(found, path, model, images[0]))


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
    graph = _build(found, pipeline)
    verify_bundle(graph, pipeline, _random_images(pipeline.image_size))
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


def _check_dataset(
    found: FinishedMethod, pipeline: ScenePipeline, dataset: SceneDataset | None
) -> bool:
    """Return whether the data set is the one that the method was tested on."""
    if dataset is None:
        return False
    if dataset.class_names != pipeline.classes:
        raise ModelError(
            f"a data set of the classes {', '.join(pipeline.classes)} is required. Received: one "
            f"of {', '.join(dataset.class_names)}; name the method's own with --data"
        )
    if not len(dataset.test):
        raise DataError(
            f"at least one test image is required to verify on. Received: none in {dataset.root}; "
            "name other data with --data"
        )
    is_own = dataset.digest == found.dataset_digest
    if found.dataset_digest and not is_own:
        logger.warning(
            "the data set %s is not the one of run %s (digest %s, not %s): verified on it all the "
            "same",
            dataset.name,
            found.stage_run and found.stage_run.id,
            dataset.digest,
            found.dataset_digest,
        )
    return is_own


def _check_said(
    found: FinishedMethod, pipeline: ScenePipeline, dataset: SceneDataset, scores: np.ndarray
) -> str:
    """Compare the labels with those that the run logged when it was tested.

    Args:
        found: the method.
        pipeline: its parts, as they are in the run now.
        dataset: the one that the run was tested on.
        scores: of its test images, float64 [N, C].

    Raises:
        ExportError: labels differ where no tie explains it.
        ModelError: the run's table of predictions is damaged.
    """
    if found.run is None:
        return ""
    try:
        path = run_file(found.run.id, PREDICTIONS)
    except ModelError as error:
        logger.warning("the labels are not compared with those that the run logged: %s", error)
        return ""
    reported = read_predictions(path, pipeline.classes)
    labels = dict(
        zip(reported.files, (reported.class_names[k] for k in reported.predictions), strict=True)
    )
    names = file_names(dataset)
    if labels.keys() != set(names) or set(reported.class_names) != set(pipeline.classes):
        raise ModelError(
            f"the run's own test images are required in {printable(path)}, but it names other "
            "files or classes: put the run's own file back, or run the stage again"
        )
    logged = np.array([pipeline.classes.index(labels[name]) for name in names])
    ties = differing_labels(scores, logged, f"run {found.run.id} ({found.run.name})")
    return f"; {len(names) - ties} of {len(names)} labels are those that the run logged" + (
        f", the others are ties within {TIE:g}" if ties else ""
    )


def differing_labels(scores: np.ndarray, logged: np.ndarray, run: str) -> int:
    """Count the labels that differ from the logged ones; all of them are ties.

    Args:
        scores: float64 [N, C].
        logged: int64 [N].
        run: for the message.

    Raises:
        ExportError: a label differs, and its score from that of the logged label by more than TIE.
    """
    ahead = scores.max(axis=1) - scores[np.arange(len(logged)), logged]
    differing = int(np.sum(scores.argmax(axis=1) != logged))
    if (ahead > TIE).any():
        raise ExportError(
            f"the labels that {run} logged when it was tested are required, but its parts give "
            f"others for {differing} of {len(logged)} test images: its network, encoder.npz or "
            "classifier.npz are not those of the test, or versions differ; nothing was written, "
            "run the stage again"
        )
    return differing


def _build(found: FinishedMethod, pipeline: ScenePipeline) -> onnx.ModelProto:
    source = found.run.id if found.run else Path(found.model).name
    return build_bundle(
        pipeline, {"method": found.name, "source_run": source, "scenetrack": __version__}
    )


def _random_images(size: int) -> np.ndarray:
    """Draw noise and smooth colours by turns: uint8 [32, size, size, 3]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_RANDOM_IMAGES, size, size, 3)).astype(np.uint8)
    images[::2] = rng.integers(0, 256, (_RANDOM_IMAGES // 2, 1, 1, 3))
    ramp = np.linspace(0, 1, size)[:, None]
    images[::4] = (images[::4] * ramp[:, None]).astype(np.uint8)
    return images


def _description(found: FinishedMethod, pipeline: ScenePipeline, path: Path) -> str:
    where = f"of run {found.run.id}" if found.run else f"of {found.model}"
    return (
        f"wrote {path}: {found.name} {where}, {len(pipeline.classes)} classes, "
        f"{path.stat().st_size / 1e6:.1f} MB"
    )


def _verification(report: BundleReport, dataset: SceneDataset | None) -> str:
    on = (
        f"test images of {dataset.name}" if dataset else "random images, for no data set is at hand"
    )
    sizes = " and ".join(map(str, report.batch_sizes))
    return (
        f"verified on {report.images} {on}, in batches of {sizes}: every label equal, scores "
        f"within {report.max_difference:.1e} of the method in Python"
    )


def _accuracy(
    found: FinishedMethod, path: Path, images: np.ndarray, dataset: SceneDataset, *, is_own: bool
) -> str:
    labels = OnnxModel(path).predict(images)["label"]
    share = float(np.mean(labels == dataset.test.labels))
    text = f"test accuracy {share:.2%}"
    logged = found.run.metrics.get("test/accuracy") if found.run else None
    if logged is None or not is_own:
        return text
    if abs(share - logged) > 1e-9:
        logger.warning(
            "run %s logged a test accuracy of %.2f%%, and the bundle reaches %.2f%%: versions or "
            "devices differ",
            found.run and found.run.id,
            100 * logged,
            100 * share,
        )
    return f"{text}, and {logged:.2%} in the run"


def _latency(path: Path, pipeline: ScenePipeline, image: np.ndarray) -> str:
    model = OnnxModel(path, device=pipeline.device)
    in_graph = milliseconds(lambda: model.run(images=image))
    in_python = milliseconds(lambda: pipeline.probabilities(pipeline.scores(image)))
    return (
        f"one image takes {in_graph:.2f} ms on {model.provider}, and {in_python:.2f} ms in Python"
    )


def _logged(found: FinishedMethod, path: Path, model: onnx.ModelProto, image: np.ndarray) -> str:
    if found.run is None:
        return "not logged: it is of no run"
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    example = base64.b64encode(buffer.getvalue()).decode()
    about = {item.key: item.value for item in model.metadata_props}
    address = log_bundle(found.run.id, path, about, example)
    return (
        f"logged to run {found.run.id}; to serve it: "
        f"mlflow models serve -m {address} --env-manager local --port 5001"
    )


def _key(found: FinishedMethod) -> str:
    """Changes with the run or the file, and with the version."""
    source = found.run.id if found.run else file_sha256(resolve_model(found.model, ""))
    return hashlib.sha256(f"{source} {__version__}".encode()).hexdigest()[:32]
