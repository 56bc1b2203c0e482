"""A finished method as one verified ONNX file: written where asked, and logged to its run."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from scenetrack.config import BundleConfig
from scenetrack.data.dataset import SceneDataset
from scenetrack.data.images import load_images
from scenetrack.delivery.bundle import BundleReport, verify_bundle
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.errors import DataError, ExportError, InputError, ModelError
from scenetrack.evaluation import PREDICTIONS, read_predictions
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.files import printable, replacing
from scenetrack.system.terminal import say
from scenetrack.tracking import log_bundle, run_file
from scenetrack.workflow.bundling import build_method, random_images
from scenetrack.workflow.dataset import check_device, dataset_of_run, onnx_target
from scenetrack.workflow.evaluation import file_names
from scenetrack.workflow.latency import milliseconds
from scenetrack.workflow.load_method import FinishedMethod, find_method, open_pipeline

logger = logging.getLogger(__name__)

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
        images = load_images(dataset.test.paths, pipeline.image_size, dataset.test.digests)
    else:
        images = random_images(pipeline.image_size)
    model = build_method(found, pipeline)
    report = verify_bundle(model, pipeline, images)
    comparison = _check_said(found, pipeline, dataset, report.scores) if dataset and is_own else ""
    with replacing(path) as temporary:
        onnx.save(model, temporary)
    say(_description(found, pipeline, path))
    say(_verification(report, dataset) + comparison)
    if dataset:
        say(_accuracy(found, path, images, dataset, is_own=is_own))
    say(_latency(path, pipeline, images[:1]))
    say(_logged(found, path, model, images[0]))


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
