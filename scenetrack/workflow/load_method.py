"""Load a finished method from its run, or from a Keras file, as a pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import onnx

from scenetrack.classifiers import FittedClassifier
from scenetrack.config import ENTRY_POINTS
from scenetrack.config.entry_point import Methods
from scenetrack.data.dataset import SceneDataset
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.encoders import ImageEncoder
from scenetrack.errors import ConfigError, InputError, ModelError
from scenetrack.graphs.files import read_model
from scenetrack.records import MethodDescription
from scenetrack.system.arrays import read_arrays
from scenetrack.system.files import printable
from scenetrack.system.foreign import distinct_names, parsed_json, whole_number
from scenetrack.tracking import RunInfo, children, resolve_onnx, resolve_run, run_file
from scenetrack.workflow.run_settings import LARGEST_SIDE

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

Arrays: TypeAlias = Mapping[str, np.ndarray]
_Part = TypeVar("_Part")

# Stages whose runs hold methods.
_WITH_METHODS = {
    name: entry.methods
    for name, entry in ENTRY_POINTS.items()
    if entry.methods in (Methods.ONE, Methods.SEVERAL)
}
_VERIFIED_IMAGES = 64


@dataclass(frozen=True)
class FinishedMethod:
    """The runs that hold the parts of a method.

    Attributes:
        name: of the method.
        model: what the user named: run id, ``.keras`` file or address of a Keras model.
        stage_run: the run that holds network and visual words; None without a run.
        run: the run of the method itself, its child or the same one.
    """

    name: str
    model: str
    stage_run: RunInfo | None = None
    run: RunInfo | None = None

    @property
    def params(self) -> Mapping[str, str]:
        """Settings of the stage."""
        return self.stage_run.params if self.stage_run else {}

    @property
    def dataset_digest(self) -> str:
        """Digest of the data set that the stage used; empty if it is unknown."""
        return self.stage_run.tags.get("dataset_digest", "") if self.stage_run else ""


def find_method(model: str, method: str = "") -> FinishedMethod:
    """Find the method that ``model`` names, without loading it.

    Args:
        model: a ``.keras`` file; the address of a logged Keras model; or the id of a run: that of
            a method is taken as it is; of a stage with several methods ``method`` is taken, else
            the one that validation chose; of ``main`` the stage that validates best. A run of
            several seeds means none of them.
        method: name of a child run, or "".

    Raises:
        ModelError: there is no such run, it is not finished, or has no such method.
        ConfigError: ``method`` does not go with what ``model`` names.
    """
    if model.endswith(".keras") or ":/" in model:
        if method:
            raise ConfigError(f"{model} is one method: leave --method {method} out")
        return FinishedMethod(Path(model).stem, model)
    run = resolve_run(model)
    if _repeats(run):
        raise _several_seeds(run)
    run = _finished(run)
    if not method and _methods_of(run) is Methods.OF_STAGES:
        run = _best_stage(run)
    if _methods_of(run) is Methods.ONE:
        if method:
            raise ConfigError(f"run {run.id} of {run.stage} is one method: leave --method out")
        return FinishedMethod(run.stage, run.id, run, run)
    parent = resolve_run(run.parent) if run.parent else None
    several = _methods_of(run) is Methods.SEVERAL
    if parent and parent.stage == run.stage and several and not _repeats(parent):
        if method not in ("", run.name):
            raise ConfigError(
                f"run {run.id} is the method {run.name!r}: leave --method out, or name its parent "
                f"{parent.id}"
            )
        return FinishedMethod(run.name, run.id, _finished(parent), run)
    if not several:
        raise _no_method(run)
    return _method_of_stage(run, method)


def open_pipeline(
    found: FinishedMethod, dataset: SceneDataset | None, device: str
) -> ScenePipeline:
    """Load the method: its network, encoder and classifier.

    Args:
        found: of ``find_method``.
        dataset: names the classes where nothing else does, and verifies what is exported anew.
        device: for the network.

    Raises:
        ModelError: a part is missing, is damaged or does not fit the others.
        ExportError: a Keras network cannot be exported.
    """
    run, stage_run = found.run, found.stage_run
    if run is None or stage_run is None or _methods_of(stage_run) is Methods.ONE:
        return _network_alone(found, dataset, device)
    about = MethodDescription.from_tags(run.name, run.tags)
    encodes = about.kernel and about.encoder != "none"
    try:
        pipeline = assemble(
            read_network(resolve_onnx(stage_run.id, "descriptors")),
            run_file(stage_run.id, "encoder.npz") if encodes else None,
            run_file(run.id, "classifier.npz") if about.kernel else None,
            aggregation=stage_run.params.get("aggregation", ""),
            temperature=run.metrics.get("temperature", 1.0),
            device=device,
        )
    except ModelError as error:
        raise ModelError(f"run {run.id} ({run.name}) cannot be opened: {error}") from error
    try:
        pipeline.scores(np.zeros((1, pipeline.image_size, pipeline.image_size, 3), np.uint8))
    except InputError as error:
        raise ModelError(
            f"parts that fit each other are required, but those of run {run.id} ({run.name}) do "
            f"not: {error}"
        ) from error
    return pipeline


def assemble(
    network: onnx.ModelProto,
    encoder: Path | None,
    classifier: Path | None,
    *,
    aggregation: str,
    temperature: float = 1.0,
    device: str = "cpu",
) -> ScenePipeline:
    """Read the parts of a method and join them: the one way to open what a stage has learnt.

    Args:
        network: of ``read_network``.
        encoder: file of the encoder; None where the method has none.
        classifier: file of the SVM; None for the network's own output.
        aggregation: one of ``config.AGGREGATIONS`` for logits of patches, else "".
        temperature: what scores are divided by before they become probabilities.
        device: where the network runs.

    Raises:
        ModelError: a part is damaged or does not fit the others.
    """
    about = {item.key: item.value for item in network.metadata_props}
    try:
        classes = distinct_names(parsed_json(about.get("classes", "")))
        image_size = whole_number(about.get("image_size", ""), 1, LARGEST_SIDE)
    except ValueError as error:
        raise ModelError(
            "a network whose metadata name its classes and image_size is required, but these do "
            f"not ({error}): run the stage again"
        ) from error
    return ScenePipeline(
        network=network,
        classes=classes,
        image_size=image_size,
        aggregation=aggregation,
        encoder=_part(encoder, ImageEncoder.from_arrays),
        classifier=_part(classifier, FittedClassifier.from_arrays),
        temperature=temperature,
        device=device,
    )


def read_network(path: Path) -> onnx.ModelProto:
    """Read the network that a stage exported.

    Raises:
        ModelError: it cannot be read, or is one for single patches.
    """
    network = read_model(path)
    about = {item.key: item.value for item in network.metadata_props}
    if "image_size" not in about:
        raise ModelError(
            "a network for whole images is required, but this one is of scenetrack "
            f"{about.get('scenetrack', '0.1')}, which kept single patches: run the stage again"
        )
    return network


def _part(path: Path | None, read: Callable[[Arrays], _Part]) -> _Part | None:
    """Read a part from its file; return None if the method has no such part.

    Raises:
        ModelError: the file is missing, or what it holds cannot be.
    """
    if path is None:
        return None
    arrays = read_arrays(path)
    try:
        return read(arrays)
    except InputError as error:
        raise ModelError(f"{printable(path)} cannot be used: {error}") from error


def _methods_of(run: RunInfo) -> Methods:
    """Return which methods a run of its stage holds."""
    entry = ENTRY_POINTS.get(run.stage)
    return entry.methods if entry else Methods.NONE


def _finished(run: RunInfo) -> RunInfo:
    if run.status != "FINISHED":
        raise ModelError(
            f"a finished run is required, but run {run.id} ({run.name}) is {run.status}: wait for "
            "it, go on with it with --resume, or name another one"
        )
    return run


def _repeats(run: RunInfo) -> bool:
    """Return whether the run's children are the same stage with several seeds."""
    return run.params.get("repeats", "1") != "1"


def _several_seeds(run: RunInfo) -> ModelError:
    finished = [child for child in children(run.id) if child.status == "FINISHED"]
    seeds = [f"{child.id} ({child.name})" for child in finished]
    return ModelError(
        f"one training is required, but run {run.id} ({run.name}) repeats {run.stage} with "
        f"several seeds: name the run of one, {' or '.join(seeds) or 'of which none is finished'}"
    )


def _best_stage(run: RunInfo) -> RunInfo:
    """Return the stage of a ``main`` run with the best validation accuracy."""
    stages = [
        stage
        for stage in children(run.id)
        if stage.stage in _WITH_METHODS and stage.status == "FINISHED"
    ]
    if not stages:
        raise _no_method(run)
    best = max(stages, key=lambda stage: stage.metrics.get("val/accuracy", 0.0))
    logger.info(
        "run %s is of main: taking its stage %s (run %s), the best in validation",
        run.id,
        best.stage,
        best.id,
    )
    return best


def _method_of_stage(run: RunInfo, method: str) -> FinishedMethod:
    methods = {child.name: child for child in children(run.id)}
    name = method or run.tags.get("best_method", "")
    if name not in methods:
        raise ModelError(
            f"the method must be one of: {', '.join(methods)}. Received: {name!r} for run {run.id}"
        )
    return FinishedMethod(name, run.id, run, _finished(methods[name]))


def _no_method(run: RunInfo) -> ModelError:
    stages = [
        f"{child.id} of {child.stage}"
        for child in children(run.id)
        if child.stage and not run.parent
    ]
    hint = f": name its run {' or '.join(stages)}" if stages else ": name another one"
    return ModelError(
        f"a run of {', '.join(_WITH_METHODS)} or of one of their methods is "
        f"required, but run {run.id} ({run.name}) is of {run.stage or 'no stage'}{hint}"
    )


def _network_alone(
    found: FinishedMethod, dataset: SceneDataset | None, device: str
) -> ScenePipeline:
    """Export a Keras network of whole images now."""
    from scenetrack.networks.keras_import import import_keras

    import_keras()
    from scenetrack.config import PATCH_NETWORK
    from scenetrack.data.images import load_images
    from scenetrack.workflow.keras_pipeline import keras_pipeline
    from scenetrack.workflow.network import take

    network = take(found.model, "")
    if network.name == PATCH_NETWORK:
        raise ModelError(
            f"a network of whole images is required, but {found.model} takes patches: name the run "
            "of patch_bow that trained it, which knows where its patches lie"
        )
    images = None
    if dataset:
        images = load_images(dataset.train.paths[:_VERIFIED_IMAGES], network.input_shape[1])
    return keras_pipeline(
        network,
        _classes(found, dataset, network.output_shape[-1]),
        images,
        temperature=found.run.metrics.get("temperature", 1.0) if found.run else 1.0,
        device=device,
    )


def _classes(found: FinishedMethod, dataset: SceneDataset | None, count: int) -> tuple[str, ...]:
    known = found.run.classes if found.run else ()
    names = known or (dataset.class_names if dataset else ())
    if not names:
        logger.warning("%s names no classes: they are numbered; --data names them", found.model)
        return tuple(str(number) for number in range(count))
    if len(names) != count:
        raise ModelError(
            f"{found.model} tells {count} classes apart, but {len(names)} are named "
            f"({', '.join(names[:10])}): choose its own data set with --data"
        )
    return tuple(names)
