"""A finished method found again in its run, or in a Keras file, as a pipeline that can be used."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import onnx

from scenetrack.classifiers import FittedClassifier
from scenetrack.data.catalog import SceneDataset
from scenetrack.delivery.pipeline import ScenePipeline
from scenetrack.encoders import ImageEncoder
from scenetrack.errors import ConfigError, InputError, ModelError
from scenetrack.export.truncate import export_truncated
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.files import read_model
from scenetrack.system.arrays import read_arrays
from scenetrack.system.files import printable
from scenetrack.tracking import RunInfo, children, resolve_onnx, resolve_run, run_file

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

Arrays: TypeAlias = Mapping[str, np.ndarray]
_Part = TypeVar("_Part")

# Stages with a child run for each method, and those that are one method themselves.
_WITH_METHODS, _ONE_METHOD = ("layer_svm", "patch_bow", "handcrafted"), ("train_mlp",)
_LOGITS = "logits"
_VERIFIED_IMAGES = 64
# The smallest normal float32: the logarithm of a probability of 0 stays finite.
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class FinishedMethod:
    """Where the parts of a method are.

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
        """Of the data set that the stage used, or ""."""
        return self.stage_run.tags.get("dataset_digest", "") if self.stage_run else ""


def find_method(model: str, method: str = "") -> FinishedMethod:
    """The method that ``model`` means: nothing of it is loaded yet.

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
    if run.stage == "main" and not method:
        run = _best_stage(run)
    if run.stage in _ONE_METHOD:
        if method:
            raise ConfigError(f"run {run.id} of {run.stage} is one method: leave --method out")
        return FinishedMethod(run.stage, run.id, run, run)
    parent = resolve_run(run.parent) if run.parent else None
    if parent and parent.stage == run.stage in _WITH_METHODS and not _repeats(parent):
        if method not in ("", run.name):
            raise ConfigError(
                f"run {run.id} is the method {run.name!r}: leave --method out, or name its parent "
                f"{parent.id}"
            )
        return FinishedMethod(run.name, run.id, _finished(parent), run)
    if run.stage not in _WITH_METHODS:
        raise _no_method(run)
    return _method_of_stage(run, method)


def open_pipeline(
    found: FinishedMethod, dataset: SceneDataset | None, device: str
) -> ScenePipeline:
    """The method with its network, visual words and classifier.

    Args:
        found: of ``find_method``.
        dataset: names the classes where nothing else does, and verifies what is exported anew.
        device: for the network.

    Raises:
        ModelError: a part is missing, is damaged or does not fit the others.
        ExportError: a Keras network cannot be exported.
    """
    run, stage_run = found.run, found.stage_run
    if run is None or stage_run is None or stage_run.stage in _ONE_METHOD:
        return _network_alone(found, dataset, device)
    network, about = _network_of(stage_run)
    encoder, classifier = None, None
    if run.tags.get("classifier") != "network":
        if run.tags.get("encoder", "none") != "none":
            encoder = _saved(stage_run, "encoder.npz", ImageEncoder.from_arrays)
        classifier = _saved(run, "classifier.npz", FittedClassifier.from_arrays)
    pipeline = ScenePipeline(
        network=network,
        classes=tuple(json.loads(about["classes"])),
        image_size=int(about["image_size"]),
        aggregation=stage_run.params.get("aggregation", ""),
        encoder=encoder,
        classifier=classifier,
        temperature=run.metrics.get("temperature", 1.0),
        device=device,
    )
    _check_parts(pipeline, run)
    return pipeline


def _saved(run: RunInfo, name: str, read: Callable[[Arrays], _Part]) -> _Part:
    """The part that a run keeps in the file ``name``.

    Raises:
        ModelError: the file is missing, or what it holds cannot be.
    """
    path = run_file(run.id, name)
    arrays = read_arrays(path)
    try:
        return read(arrays)
    except InputError as error:
        raise ModelError(f"{printable(path)} of run {run.id} cannot be used: {error}") from error


def _check_parts(pipeline: ScenePipeline, run: RunInfo) -> None:
    """Raise ModelError unless the network's output fits the encoder, and its the classifier."""
    try:
        pipeline.scores(np.zeros((1, pipeline.image_size, pipeline.image_size, 3), np.uint8))
    except InputError as error:
        raise ModelError(
            f"parts that fit each other are required, but those of run {run.id} ({run.name}) do "
            f"not: {error}"
        ) from error


def _network_of(run: RunInfo) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The network that a stage exported, and what it says of itself."""
    network = read_model(resolve_onnx(run.id, "descriptors"))
    about = {item.key: item.value for item in network.metadata_props}
    if "image_size" not in about:
        raise ModelError(
            f"a network for whole images is required, but that of run {run.id} is of scenetrack "
            f"{about.get('scenetrack', '0.1')}, which kept single patches: run the stage again"
        )
    return network, about


def _finished(run: RunInfo) -> RunInfo:
    if run.status != "FINISHED":
        raise ModelError(
            f"a finished run is required, but run {run.id} ({run.name}) is {run.status}: wait for "
            "it, go on with it with --resume, or name another one"
        )
    return run


def _repeats(run: RunInfo) -> bool:
    """Whether the run's children are the same stage with several seeds."""
    return run.params.get("repeats", "1") != "1"


def _several_seeds(run: RunInfo) -> ModelError:
    seeds = [f"{one.id} ({one.name})" for one in children(run.id) if one.status == "FINISHED"]
    return ModelError(
        f"one training is required, but run {run.id} ({run.name}) repeats {run.stage} with "
        f"several seeds: name the run of one, {' or '.join(seeds) or 'of which none is finished'}"
    )


def _best_stage(run: RunInfo) -> RunInfo:
    """The stage of a ``main`` run with the best accuracy on held-out training images."""
    known = (*_WITH_METHODS, *_ONE_METHOD)
    stages = [one for one in children(run.id) if one.stage in known and one.status == "FINISHED"]
    if not stages:
        raise _no_method(run)
    best = max(stages, key=lambda one: one.metrics.get("val/accuracy", 0.0))
    logger.info(
        "run %s is of main: taking its stage %s (run %s), the best in validation",
        run.id,
        best.stage,
        best.id,
    )
    return best


def _method_of_stage(run: RunInfo, method: str) -> FinishedMethod:
    methods = {one.name: one for one in children(run.id)}
    name = method or run.tags.get("best_method", "")
    if name not in methods:
        raise ModelError(
            f"the method must be one of: {', '.join(methods)}. Received: {name!r} for run {run.id}"
        )
    return FinishedMethod(name, run.id, run, _finished(methods[name]))


def _no_method(run: RunInfo) -> ModelError:
    stages = [
        f"{one.id} of {one.stage}" for one in children(run.id) if one.stage and not run.parent
    ]
    hint = f": name its run {' or '.join(stages)}" if stages else ": name another one"
    return ModelError(
        f"a run of {', '.join((*_WITH_METHODS, *_ONE_METHOD))} or of one of their methods is "
        f"required, but run {run.id} ({run.name}) is of {run.stage or 'no stage'}{hint}"
    )


def _network_alone(
    found: FinishedMethod, dataset: SceneDataset | None, device: str
) -> ScenePipeline:
    """A Keras network of whole images, exported now."""
    from scenetrack.networks.keras_import import import_keras

    import_keras()
    from scenetrack.config import PATCH_NETWORK
    from scenetrack.data.images import load_images
    from scenetrack.workflow.network import take

    network = take(found.model, "")
    if network.name == PATCH_NETWORK:
        raise ModelError(
            f"a network of whole images is required, but {found.model} takes patches: name the run "
            "of patch_bow that trained it, which knows where its patches lie"
        )
    size, count = network.input_shape[1], network.output_shape[-1]
    images = None
    if dataset:
        images = load_images(dataset.train.paths[:_VERIFIED_IMAGES], size)
    return ScenePipeline(
        network=exported(network, images),
        classes=_classes(found, dataset, count),
        image_size=size,
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


def exported(network: keras.Model, images: np.ndarray | None) -> onnx.ModelProto:
    """The network with the output ``logits``; of a foreign one the logarithm of its shares."""
    layer = network.layers[-1]
    # A layer of another's network that has this name may be anything.
    own = [one.name for one in network.layers[-2:]] == [_LOGITS, "probabilities"]
    shares = not own and _gives_shares(network)
    if not own and not shares and not _is_linear(layer):
        raise ModelError(
            f"a network that ends in a softmax, or without activation, is required, but the values "
            f"of the last layer {layer.name} of {network.name} are neither probabilities nor "
            "scores: end it in one of these"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        outputs = {_LOGITS: _LOGITS if own else layer.name}
        export_truncated(network, outputs, path, metadata={}, real_images=images)
        model = read_model(path)
    return _with_logarithm(model) if shares else model


def _gives_shares(network: keras.Model) -> bool:
    """Whether each row of the outputs is one of probabilities, on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, *network.input_shape[1:])).astype(np.uint8)
    shares = network.predict(images, verbose=0)
    return bool((shares >= 0).all() and np.abs(shares.sum(axis=1) - 1).max() < 1e-3)


def _is_linear(layer: Any) -> bool:
    import keras

    return getattr(layer, "activation", None) is keras.activations.linear


def _with_logarithm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Softmax of the new output ``logits`` gives the old one, its probabilities."""
    builder = GraphBuilder(model.graph.name)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    images = builder.input("images", np.uint8, shapes[0])
    shares = builder.include(model, {model.graph.input[0].name: images})[_LOGITS]
    kept = builder.node("Max", shares, builder.constant("tiny", np.array(_TINY, np.float32)))
    builder.output(_LOGITS, builder.node("Log", kept), np.float32, shapes[1])
    return builder.build({})
