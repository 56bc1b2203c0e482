"""What a bundle says of images, checked: a row for each image, and no figure that is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenetrack.errors import ModelError

# Why an image has no class though it could be read.
NOT_FINITE = "the model gives no finite scores for it"
# What float32 sums of probabilities may be above 1.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Verdicts:
    """What a bundle says of n images.

    Attributes:
        outputs: of the bundle for the images that have a class, arrays [m, ...] by name.
        usable: bool [n], which images have one: m of them.
    """

    outputs: Mapping[str, np.ndarray]
    usable: NDArray[np.bool_]


def checked_verdicts(outputs: Mapping[str, np.ndarray], images: int, classes: int) -> Verdicts:
    """Return the outputs of the images that have finite scores, and which they are.

    Args:
        outputs: of a bundle: ``label`` int64 [n], ``probabilities`` and ``scores`` float [n, C].
        images: n, how many were given.
        classes: C.

    Raises:
        ModelError: there are more or fewer rows than images, or labels of no class.
    """
    wanted = {"label": (images,), "probabilities": (images, classes), "scores": (images, classes)}
    found = {name: np.shape(outputs[name]) for name in wanted}
    rows = {name: np.shape(values)[:1] for name, values in outputs.items()}
    if found != wanted or set(rows.values()) != {(images,)}:
        raise _no_bundle(f"a row for each of {images} images", f"gives {_text(found | rows)}")
    usable = np.ones(images, np.bool_)
    for values in outputs.values():
        if np.issubdtype(values.dtype, np.floating):
            usable &= np.isfinite(values.reshape(images, -1)).all(axis=1)
    shares = outputs["probabilities"]
    usable &= ((shares >= 0) & (shares <= 1 + _ROUNDING)).all(axis=1)
    labels = outputs["label"][usable]
    if not ((labels >= 0) & (labels < classes)).all():
        raise _no_bundle(f"labels of its {classes} classes", "gives others")
    return Verdicts({name: values[usable] for name, values in outputs.items()}, usable)


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _no_bundle(wanted: str, received: str) -> ModelError:
    return ModelError(
        f"a bundle with {wanted} is required, but this one {received}: make it again with "
        "scenetrack bundle"
    )
