"""Network builders by the name in a config: a new network is a file and a line here.

Each network takes uint8 RGB images and ends in the layers ``logits`` and ``probabilities``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from scenetrack.config import TrainingConfig
from scenetrack.networks.mlp import mlp
from scenetrack.networks.patch_mlp import patch_mlp

NETWORKS: Mapping[str, Callable[[Any, int], keras.Model]] = {
    "mlp": mlp,
    "patch_mlp": patch_mlp,
}


def build_network(config: TrainingConfig, classes: int) -> keras.Model:
    """Return the untrained network that ``config.network`` names, for ``classes`` classes.

    Its weights depend only on ``config.seed``. The input ``images`` is uint8 [N, S, S, 3]; the
    output is float32 [N, classes], probabilities that sum to one.

    Raises:
        TypeError: the config names no network.
    """
    build = NETWORKS.get(getattr(config, "network", ""))
    if build is None:
        raise TypeError(f"no network is known for {type(config).__name__}")
    keras.utils.set_random_seed(config.seed)
    return build(config, classes)
