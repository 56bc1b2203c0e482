"""The command ``predict``: classify image files and draw explanations."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from scenetrack.config import PredictConfig
from scenetrack.data.decoding import quiet_decoding
from scenetrack.delivery.file_classifier import Classifier
from scenetrack.delivery.output import (
    Output,
    Stream,
    format_of,
    import_pyarrow,
    journalled,
    output_file,
)
from scenetrack.delivery.paths import PathList, find_images
from scenetrack.delivery.rows import make_rows
from scenetrack.errors import DataError, InputError
from scenetrack.graphs.files import read_model
from scenetrack.graphs.providers import CPU
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.system.files import ensure_writable, file_sha256, user_path
from scenetrack.system.machine import available_cpus

if TYPE_CHECKING:
    from scenetrack.delivery.explanation_pictures import Explainer

_MEGABYTE = 2**20


def predict(config: PredictConfig) -> None:
    """Classify the images that ``config`` names and write a row for each.

    Rows go to standard output as they come, or into a file that appears when it is whole. A call
    that was killed is gone on with by the same call.

    Raises:
        DataError: images have no class, since they could not be read or the model gives no finite
            scores; the rows of all others are written.
        InputError: no model, a word that means no image, or an output that cannot be.
        ScenetrackError: another process writes the same file, the GPU that was insisted on does
            not start, or the disk is full.
    """
    format = format_of(config.format, config.output)
    if format == "parquet":
        import_pyarrow()
    if not config.model:
        raise InputError("a model is required: give a bundle (.onnx), a run id or a .keras file")
    if config.output:
        output_file(config.output)
    if config.explain:
        ensure_writable(user_path(config.explain))
    with find_images(config.images, sys.stdin) as paths:
        file = bundle_file(config.model)
        classifier = _open(config, file)
        top = min(config.top, len(classifier.classes))
        with _output(config, file, paths, format, top) as output:
            _classify(config, classifier, paths, output, top)
    if output.failures:
        where = f" of {config.output}" if config.output else ""
        raise DataError(
            f"{output.failures} of {len(paths)} images have no class: the column error{where} "
            "says why"
        )


def bundle_file(model: str) -> Path:
    """Return the bundle that ``model`` means: a file, or one that its run has or is made now."""
    path = user_path(model)
    if path.suffix.lower() == ".onnx":
        return path
    # MLflow and Keras take seconds to import, and a bundle needs neither.
    from scenetrack.workflow.bundling import bundle_of

    return bundle_of(model)


def _open(config: PredictConfig, file: Path) -> Classifier:
    memory, cpus = config.memory * _MEGABYTE, available_cpus()
    source: Path | bytes = with_saliency(file) if config.explain else file
    # Batches side by side, each in one thread, keep all processors busy; threads within an
    # operator would wait for each other, and for those that decode.
    model = OnnxModel(
        source,
        device=config.device,
        require_gpu=config.require_gpu,
        threads=1,
        memory=memory // (2 * cpus),
    )
    if model.provider == CPU:
        return Classifier(model, memory=memory, threads=cpus, workers=cpus)
    model = OnnxModel(source, device=config.device, memory=memory // 2)
    return Classifier(model, memory=memory, threads=cpus)


def with_saliency(file: Path) -> Path | bytes:
    """Return the bundle with its saliency of patches as an output, where it has any."""
    # What makes bundles takes its time to import, and only pictures need it.
    from scenetrack.delivery.bundle import with_evidence

    model = read_model(file)
    about = {item.key: item.value for item in model.metadata_props}
    return with_evidence(model).SerializeToString() if about.get("evidence") else file


@contextmanager
def _output(
    config: PredictConfig, file: Path, paths: PathList, format: str, top: int
) -> Iterator[Output]:
    if not config.output:
        yield Stream(sys.stdout.buffer, format, top)
        return
    settings = {
        "model": file_sha256(file),
        "images": paths.digest(),
        "top": top,
        "explain": config.explain and os.path.abspath(user_path(config.explain)),
    }
    with journalled(config.output, format, top, settings, paths) as journal:
        yield journal


def _classify(
    config: PredictConfig, classifier: Classifier, paths: PathList, output: Output, top: int
) -> None:
    # On a terminal a bar would run through the rows; None leaves it out where there is none.
    hidden = True if not config.output and sys.stdout.isatty() else None
    progress = tqdm(
        total=len(paths), initial=output.kept, desc="classifying", unit="img", disable=hidden
    )
    explainer = _explainer(config, classifier, islice(paths, output.kept))
    batches = classifier.batches(islice(paths, output.kept, None))
    with quiet_decoding(), progress, closing(batches):
        for batch in batches:
            rows = make_rows(batch.paths, batch.problems, batch.outputs, classifier.classes, top)
            if explainer:
                explainer.explain(batch, rows)
            output.add(rows)
            progress.update(len(rows))


def _explainer(
    config: PredictConfig, classifier: Classifier, earlier: Iterable[str]
) -> Explainer | None:
    if not config.explain:
        return None
    # Matplotlib takes half a second to import.
    from scenetrack.delivery.explanation_pictures import Explainer

    return Explainer(user_path(config.explain), classifier, earlier)
