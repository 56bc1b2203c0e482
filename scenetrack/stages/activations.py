"""Task 2: the output of a layer for an image, as numbers and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scenetrack.config import PATCH_NETWORK, ActivationsConfig
from scenetrack.data.images import load_images
from scenetrack.data.patches import PatchGrid
from scenetrack.errors import InputError
from scenetrack.export.truncate import find_layer
from scenetrack.figures import draw_activation_maps
from scenetrack.records import Artifact, Tracker
from scenetrack.system.files import ensure_writable, replacing, user_path
from scenetrack.workflow.network import layer_table, take
from scenetrack.workflow.result import StageResult

if TYPE_CHECKING:
    import keras


def activations(config: ActivationsConfig, tracker: Tracker | None = None) -> StageResult:
    """Write ``IMAGE-LAYER.npz`` and ``.png`` to the output folder.

    The ``.npz`` holds ``values``, float32 [D] or [H, W, D], and ``image``, the uint8 pixels that
    went in. A patch network is applied to all patches of the image, a quarter of a patch apart,
    which gives a map. With ``layer`` list it gives the layers and their shapes, and no run is
    needed.

    Raises:
        InputError: no such image, model or layer, or the folder is not writable.
    """
    if tracker is None:
        table = layer_table(take(config.model, config.experiment))
        return StageResult("", table)
    path, folder = user_path(config.image), user_path(config.output)
    if not path.is_file():
        raise InputError(f"an image file is required. Received: {config.image or 'none'}")
    ensure_writable(folder)
    network = take(config.model, config.experiment)
    layer = find_layer(network, config.layer).name
    takes_patches = network.name == PATCH_NETWORK
    size = config.image_size if takes_patches else network.input_shape[1]
    pixels = load_images([path], size)[0]
    values = _layer_output(network, layer, pixels)
    stem = f"{path.stem}-{layer}"
    arrays, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
    with replacing(arrays) as temporary:
        np.savez_compressed(temporary, values=values, image=pixels)
    figure = draw_activation_maps(values, layer, pixels, name=f"figures/{stem}.png")
    with replacing(picture) as temporary:
        temporary.write_bytes(figure.png)
    tracker.log(figure, Artifact(arrays))
    shape = " x ".join(map(str, values.shape))
    summary = f"{layer}: {shape} values, {values.min():.3g} to {values.max():.3g}\n"
    return StageResult(tracker.run_id, f"{summary}wrote {arrays} and {picture}")


def _layer_output(network: keras.Model, layer: str, pixels: np.ndarray) -> np.ndarray:
    """Compute float32 [D] or [H, W, D] for uint8 [S, S, 3]."""
    import keras

    part = keras.Model(network.inputs, network.get_layer(layer).output)
    side = network.input_shape[1]
    if side == len(pixels):
        return np.asarray(part.predict(pixels[None], verbose=0)[0], np.float32)
    grid = PatchGrid(len(pixels), side, max(1, side // 4))
    patches = grid.extract(pixels[None])[0]
    values = part.predict(patches, batch_size=256, verbose=0)
    return np.asarray(values, np.float32).reshape(grid.side, grid.side, -1)
