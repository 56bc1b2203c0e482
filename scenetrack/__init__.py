"""Scene and image classification: Keras to ONNX descriptors, encoders, SVMs, tracked in MLflow.

>>> import scenetrack
>>> result = scenetrack.run("handcrafted", data="demo", encoder="vlad")  # doctest: +SKIP
>>> model = scenetrack.load(result.run_id)  # doctest: +SKIP
>>> model.predict("photos")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenetrack.api.model import Model, load
    from scenetrack.api.runs import Result, compare, run
    from scenetrack.descriptors.dense_sift import DenseSift
    from scenetrack.encoders import BagOfWords, FisherVector, Vlad
    from scenetrack.errors import InputError, ScenetrackError

__version__ = "0.2.0"
__all__ = [
    "BagOfWords",
    "DenseSift",
    "FisherVector",
    "InputError",
    "Model",
    "Result",
    "ScenetrackError",
    "Vlad",
    "__version__",
    "compare",
    "load",
    "run",
]

_HOMES = {
    "BagOfWords": "encoders",
    "DenseSift": "descriptors.dense_sift",
    "FisherVector": "encoders",
    "InputError": "errors",
    "Model": "api.model",
    "Result": "api.runs",
    "ScenetrackError": "errors",
    "Vlad": "encoders",
    "compare": "api.runs",
    "load": "api.model",
    "run": "api.runs",
}


def __getattr__(name: str) -> Any:
    # Imported at first use (PEP 562): TensorFlow, MLflow and scikit-learn take seconds.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
