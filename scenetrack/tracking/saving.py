"""Logging of model files to MLflow; nothing is loaded or executed."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mlflow import MlflowClient, entities
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types import TensorSpec as MlflowTensorSpec
from mlflow.types.schema import Map

from scenetrack.errors import ModelError
from scenetrack.records import Model, TensorSpec
from scenetrack.system.files import file_sha256
from scenetrack.tracking.models import newest_model
from scenetrack.tracking.store import connect, get_run, one_line_errors

logger = logging.getLogger(__name__)

BUNDLE = "bundle"
LOADER = "scenetrack.tracking.pyfunc"

_ONNX_FILE = "model.onnx"
_DIGEST_TAG = "sha256"
_PYTHON_MODEL = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}


def log_model(client: MlflowClient, run: entities.RunInfo, model: Model) -> None:
    """Log the model file of ``model`` to a run with its signature and exact requirements.

    Raises:
        MlflowException: the store refuses it.
    """
    save = _save_onnx if model.path.suffix == ".onnx" else _save_keras
    _log(client, run, model.name, lambda folder, described: save(model, folder, described))


def log_bundle(run_id: str, path: Path, metadata: Mapping[str, str], example: str) -> str:
    """Log a bundle to the finished run that it was made from, as the MLflow model ``bundle``.

    The ``onnx`` flavour takes arrays; the ``python_function`` flavour takes image files, see
    ``scenetrack.tracking.pyfunc``. The run keeps its status. The same file is not logged twice.

    Args:
        run_id: id of the run.
        path: the ``.onnx`` file.
        metadata: logged with the model.
        example: image file in base64, logged as the input example.

    Returns:
        The model's address, ``models:/ID``.

    Raises:
        ModelError: there is no such run.
        ScenetrackError: the store cannot be reached or refuses the model.
    """
    digest = file_sha256(path)
    client = connect()
    run = get_run(client, run_id)
    with one_line_errors():
        found = newest_model(client, run, BUNDLE)
        if found is not None and found.tags.get(_DIGEST_TAG) == digest:
            logger.info("reusing the model %s of run %s: same file", found.model_id, run_id)
            return f"models:/{found.model_id}"
        logged = _log(
            client,
            run.info,
            BUNDLE,
            lambda folder, described: _save_bundle(path, metadata, example, folder, described),
            {_DIGEST_TAG: digest},
        )
    return f"models:/{logged.model_id}"


def check_registry() -> None:
    """Raise ScenetrackError where the store has no registry of models, before there is one."""
    with one_line_errors():
        connect().search_registered_models(max_results=1)


def register_champion(run_id: str, name: str) -> str:
    """Register the newest bundle of a run under ``name``, with the alias ``champion``.

    Returns:
        The version of the registered model.

    Raises:
        ModelError: there is no such run.
        ScenetrackError: the store cannot be reached or refuses the model.
    """
    client = connect()
    run = get_run(client, run_id)
    with one_line_errors():
        found = newest_model(client, run, BUNDLE)
        if found is None:
            raise ModelError(f"run {run_id} must have a bundle to be registered, but has none")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            name, f"models:/{found.model_id}", run_id=run_id, model_id=found.model_id
        )
        client.set_registered_model_alias(name, "champion", version.version)
    return str(version.version)


def _log(
    client: MlflowClient,
    run: entities.RunInfo,
    name: str,
    save: Callable[[Path, MlflowModel], None],
    tags: Mapping[str, str] | None = None,
) -> LoggedModel:
    """Log the folder that ``save`` writes as a model of the run; mark it as failed on an error."""
    logged = client.create_logged_model(
        run.experiment_id, name=name, source_run_id=run.run_id, tags=dict(tags or {})
    )
    described = MlflowModel(
        artifact_path=logged.artifact_location, run_id=run.run_id, model_id=logged.model_id
    )
    try:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            save(folder, described)
            client.log_model_artifacts(logged.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _save_onnx(model: Model, folder: Path, described: MlflowModel) -> None:
    _write_onnx(
        model.path,
        folder,
        described,
        ModelSignature(_schema(model.inputs), _schema(model.outputs)),
        model.metadata,
    )


def _save_bundle(
    path: Path, metadata: Mapping[str, str], example: str, folder: Path, described: MlflowModel
) -> None:
    import pandas as pd

    _import_pyfunc()
    from mlflow import pyfunc

    results = Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "probability"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )
    # Text, not binary: mlflow decodes binary by itself and so cannot say what was wrong with it.
    # Bytes pass as well.
    signature = ModelSignature(Schema([ColSpec(DataType.string, "image")]), results)
    with warnings.catch_warnings():
        # mlflow compares the columns of the example with a range, which pandas 3 warns of.
        warnings.simplefilter("ignore", DeprecationWarning)
        frame = pd.DataFrame({"image": [example]})
        _write_onnx(path, folder, described, signature, metadata, frame)
    pyfunc.add_to_model(described, LOADER, data=_ONNX_FILE, **_PYTHON_MODEL)
    described.save(str(folder / "MLmodel"))


def _write_onnx(
    path: Path,
    folder: Path,
    described: MlflowModel,
    signature: ModelSignature,
    metadata: Mapping[str, str],
    example: object = None,
) -> None:
    _import_pyfunc()
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(
        onnx.load(path),
        folder,
        mlflow_model=described,
        signature=signature,
        input_example=example,
        pip_requirements=_requirements(
            "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "mlflow", "pillow", "pandas"
        ),
        metadata=dict(metadata),
        save_as_external_data=False,
    )
    # The very file that was verified is kept.
    shutil.copyfile(path, folder / _ONNX_FILE)


def _save_keras(model: Model, folder: Path, described: MlflowModel) -> None:
    _import_pyfunc()
    import mlflow.keras

    unnamed = len(model.inputs) == 1  # so that a served model takes a plain array
    mlflow.keras.save_model(
        _KerasFile(model.path),
        str(folder),
        mlflow_model=described,
        signature=ModelSignature(
            _schema(model.inputs, named=not unnamed), _schema(model.outputs, named=not unnamed)
        ),
        pip_requirements=_requirements("keras", "tensorflow", "numpy", "mlflow"),
        metadata=dict(model.metadata),
    )


def _import_pyfunc() -> None:
    with warnings.catch_warnings():
        # The first import warns of type hints of mlflow's own.
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc  # noqa: F401


@dataclass(frozen=True)
class _KerasFile:
    """Stand-in for a Keras model that mlflow saves: the very file that was verified is kept."""

    path: Path

    def save(self, target: str) -> None:
        shutil.copyfile(self.path, target)


def _schema(specs: Sequence[TensorSpec], *, named: bool = True) -> Schema:
    return Schema(
        [
            MlflowTensorSpec(np.dtype(spec.dtype), spec.shape, spec.name if named else None)
            for spec in specs
        ]
    )


def _requirements(*distributions: str) -> list[str]:
    """Pin installed versions; not scenetrack, a name that anyone could take on a public index."""
    pins = []
    for name in distributions:
        try:
            pins.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pins
