"""Cache of trained networks and fitted encoders, by everything that they depend on.

A training with a seed gives the same weights again, so that a run that asks for no other network
takes the earlier one's. What a network and an encoder depend on is their key in the cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scenetrack import __version__
from scenetrack.cache.archives import open_archive, store_archive
from scenetrack.config import EncodingConfig, StageConfig, TrainingConfig
from scenetrack.data.decoding import PIXELS_VERSION
from scenetrack.encoders import ImageEncoder
from scenetrack.system.foreign import parsed_json
from scenetrack.system.machine import available_cpus
from scenetrack.workflow.dataset import SceneImages

if TYPE_CHECKING:
    from scenetrack.networks.training import TrainResult

KEPT_NETWORKS, KEPT_ENCODERS = "networks", "encoders"


def _names(config: type[StageConfig]) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(config))


_OF_ENCODING = _names(EncodingConfig) - _names(StageConfig)
# Whatever is not named here tells networks apart: a setting that is forgotten costs a training,
# and never gives a wrong network. The images themselves have digests.
_NOT_OF_NETWORKS = _OF_ENCODING | {
    "aggregation", "data", "device", "drop_duplicates", "experiment", "folds", "form", "kernels",
    "layer", "model", "preset", "repeats", "require_gpu", "resume", "skip_bad", "temperatures",
    "test",
}  # fmt: skip
# Variables by which TensorFlow and what it calls compute other digits.
_NUMERIC_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "TF_CUDNN_DETERMINISTIC", "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_XLA_FLAGS",
    "XLA_FLAGS",
)  # fmt: skip
_NOT_OF_ENCODERS = {"folds", "kernels", "refit_encoder"}


@dataclass(frozen=True)
class KeptNetwork:
    """A network that was trained before.

    Attributes:
        file: the content of its ``.keras`` file.
        result: of its training.
        run: that trained it.
    """

    file: bytes
    result: TrainResult
    run: str


def network_key(name: str, images: SceneImages, config: TrainingConfig) -> dict[str, str]:
    """Digest all that the training of a network depends on.

    Args:
        name: of the network's kind.
        images: that it learns from and is validated on.
        config: of the stage.
    """
    settings = _settings(
        config, _NOT_OF_NETWORKS | (_names(type(config)) - config.read_by_training)
    )
    return {
        "network": name,
        **{setting: settings[setting] for setting in ("hidden", "epochs", "seed")},
        "images": _digest(images.dataset.digest, images.fitted, images.held_out),
        "settings": _digest(json.dumps(settings, sort_keys=True), PIXELS_VERSION),
        "by": f"{_versions()}, {_keras_environment()}",
    }


def find_network(key: Mapping[str, str]) -> KeptNetwork | None:
    """Return the network that was trained with this key before; None if it is not kept."""
    # Encoders alone need no Keras.
    from scenetrack.networks.training import TrainResult

    found = open_archive(KEPT_NETWORKS, key)
    if found is None:
        return None
    about = parsed_json(str(found["about"]))
    result = TrainResult(about["history"], about["best_epoch"], about["seconds"], 0)
    return KeptNetwork(found["keras"].tobytes(), result, about["run"])


def keep_network(key: Mapping[str, str], path: Path, result: TrainResult, run: str) -> None:
    """Keep the network in the file ``path`` for later runs.

    Args:
        key: of ``network_key``.
        path: of its ``.keras`` file.
        result: of its training, which was not resumed.
        run: that trained it.
    """
    about = {
        "history": result.history,
        "best_epoch": result.best_epoch,
        "seconds": result.seconds,
        "run": run,
    }
    content = np.frombuffer(path.read_bytes(), np.uint8)
    store_archive(KEPT_NETWORKS, key, {"keras": content, "about": np.array(json.dumps(about))})


def encoder_key(
    descriptors: str, config: EncodingConfig, sample: int, owners: NDArray[np.int64] | None
) -> dict[str, str]:
    """Digest all that an encoder depends on.

    Args:
        descriptors: digest of those of all training images.
        config: of the stage.
        sample: number of descriptors that it is learnt from.
        owners: images that these are drawn from; None: all.
    """
    names = (_OF_ENCODING - _NOT_OF_ENCODERS) | {"seed"}
    settings = _settings(config, _names(type(config)) - names)
    shown = ("encoder", "codebook_size", "pca", "seed")
    return {
        **{name: settings[name] for name in shown},
        "descriptors": descriptors,
        "sample": str(sample),
        "images": "all" if owners is None else _digest(owners),
        "settings": _digest(json.dumps(settings, sort_keys=True)),
        "by": f"{_versions()}, scikit-learn {importlib.metadata.version('scikit-learn')}",
    }


def find_encoder(key: Mapping[str, str]) -> tuple[ImageEncoder, float] | None:
    """Return the encoder that was fitted with this key before, and the seconds that it took."""
    found = open_archive(KEPT_ENCODERS, key)
    if found is None:
        return None
    seconds = float(found.pop(_SECONDS))
    return ImageEncoder.from_arrays(found), seconds


def keep_encoder(key: Mapping[str, str], encoder: ImageEncoder, seconds: float) -> None:
    """Keep an encoder, and the seconds that it took to learn, for later runs."""
    store_archive(KEPT_ENCODERS, key, {**encoder.to_arrays(), _SECONDS: np.array(seconds)})


def _settings(config: StageConfig, left_out: Set[str]) -> dict[str, str]:
    return {name: value for name, value in config.as_params().items() if name not in left_out}


def _versions() -> str:
    # Threads add up in another order, which changes last digits.
    return f"scenetrack {__version__}, numpy {np.__version__}, {available_cpus()} threads"


def _keras_environment() -> str:
    """Describe what changes a training besides its settings: versions, device, Keras' own settings.

    The latter come from ``~/.keras/keras.json`` and from variables that libraries read.
    """
    import keras
    import tensorflow as tf

    place = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    settings = {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": keras.config.dtype_policy().name,
        **{name: os.environ[name] for name in _NUMERIC_VARIABLES if name in os.environ},
    }
    return (
        f"keras {keras.__version__}, tensorflow {tf.__version__} on the {place}, "
        f"environment {_digest(json.dumps(settings, sort_keys=True))[:8]}"
    )


def _digest(*parts: str | NDArray[np.int64]) -> str:
    found = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.asarray(part, np.int64).tobytes()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.hexdigest()[:32]


_SECONDS = "seconds"
