"""The network of a stage: taken from an earlier run or planned anew, and checked."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scenetrack.classifiers.folds import usable_folds
from scenetrack.config import CutNetworkConfig
from scenetrack.data.dataset import SceneDataset
from scenetrack.errors import ConfigError, ModelError
from scenetrack.export.truncate import find_layers, joined_output, layer_names
from scenetrack.networks.learnt_images import image_numbers, learnt_images
from scenetrack.networks.registry import build_network
from scenetrack.networks.training import load_model
from scenetrack.workflow.dataset import SceneImages, check_device

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

_VERIFIED_IMAGES = 64


def take(model: str, experiment: str) -> keras.Model:
    """Load the Keras network of a run or file.

    Raises:
        ModelError: there is no such model, or it is no classifier of square RGB images.
    """
    return _checked(find_file(model, experiment))


def find_file(model: str, experiment: str) -> Path:
    """Return the ``.keras`` file of a run or path.

    Raises:
        ModelError: there is none.
    """
    from scenetrack.tracking import resolve_model

    return resolve_model(model, experiment)


def _checked(path: Path) -> keras.Model:
    network = load_model(path)
    inputs = [tuple(tensor.shape) for tensor in network.inputs]
    outputs = [tuple(tensor.shape) for tensor in network.outputs]
    shape = inputs[0]
    is_square = len(shape) == 4 and shape[1] is not None and shape[1:] == (shape[1], shape[1], 3)
    if len(inputs) > 1 or not is_square:
        raise ModelError(
            "a network that takes RGB images of one fixed square size is required, but "
            f"{path.name} takes {' and '.join(map(str, inputs))}"
        )
    if len(outputs) > 1 or len(outputs[0]) != 2:
        raise ModelError(
            "a network that gives one probability for each class is required, but "
            f"{path.name} gives {' and '.join(map(str, outputs))}"
        )
    return network


@dataclass(frozen=True)
class NetworkPlan:
    """The network of a stage that cuts it at a layer, before the data are read.

    Attributes:
        config: settings of the stage.
        taken: the network of an earlier run or file; None where a new one is trained.
        learnt: numbers of the images that ``taken`` has learnt; None where that is not known.
        layers: names of the layers to cut at, whose outputs are joined.
        width: number of values that the layers together give for one input.
    """

    config: CutNetworkConfig
    taken: keras.Model | None
    layers: tuple[str, ...]
    width: int
    learnt: NDArray[np.uint64] | None = None

    @property
    def is_new(self) -> bool:
        """Whether the network is still to be trained."""
        return self.taken is None

    @property
    def layer_names(self) -> str:
        """The layers as tags and messages show them."""
        return ", ".join(self.layers)

    def judging_images(self, images: SceneImages) -> SceneImages:
        """Return ``images`` with those held out that the network has not learnt.

        Of a network that is still to be trained these are the ones held out already, and of one
        that has learnt none of them too. Where it has learnt all, or is known to nobody, none is.
        """
        if self.is_new:
            return images
        count = len(images.dataset.train)
        is_learnt = np.ones(count, np.bool_)
        if self.learnt is not None:
            is_learnt = np.isin(image_numbers(images.dataset.train.digests), self.learnt)
        if not is_learnt.any():
            return dataclasses.replace(images, network_knows=False)
        if is_learnt.all():
            logger.warning(
                "the network has learnt the training images%s: none is left to choose and judge "
                "methods by, so that figures inside train say little, and temperatures are 1",
                "" if self.learnt is not None else ", as far as its file tells",
            )
        else:
            logger.info(
                "%d training images that the network has not learnt are held out",
                (~is_learnt).sum(),
            )
        return dataclasses.replace(
            images, fitted=np.flatnonzero(is_learnt), held_out=np.flatnonzero(~is_learnt)
        )

    def network_for(self, dataset: SceneDataset) -> keras.Model:
        """Return the network that was taken, or a new one, for the classes of ``dataset``.

        Raises:
            InputError: the network taken tells other classes apart, or the data do not allow
                cross-validation.
        """
        usable_folds(dataset.train.labels, dataset.class_names, folds=2)
        classes = len(dataset.class_names)
        network = self.taken or build_network(self.config, classes)
        check_classes(network, classes)
        return network


def plan_network(config: CutNetworkConfig, size_parameter: str) -> NetworkPlan:
    """Take the network that ``config.model`` names, or plan a new one, and find its layers.

    Args:
        config: settings of the stage.
        size_parameter: name of the parameter that is the side of the network's input.

    Raises:
        InputError: the model or the layer cannot be used.
    """
    check_device(config)
    file = find_file(config.model, config.experiment) if config.model else None
    taken = _checked(file) if file else None
    planned = taken or build_network(config, classes=2)
    check_fits(planned, size_parameter, getattr(config, size_parameter))
    layers = find_layers(planned, config.layer)
    width = int(np.prod(joined_output(planned, layers).shape[1:]))
    return NetworkPlan(config, taken, layers, width, learnt_images(file) if file else None)


def check_fits(network: keras.Model, name: str, size: int) -> None:
    """Raise ModelError unless the network takes ``size`` px and has the layer ``logits``.

    ``name`` is the parameter that sets the size.
    """
    expected = network.input_shape[1]
    if expected != size:
        raise ModelError(
            f"the network takes {expected} px, but {name} is {size}: "
            f"add --{name.replace('_', '-')} {expected}"
        )
    if "logits" not in {layer.name for layer in network.layers}:
        raise ModelError(
            "a network with a layer named logits before its softmax is required, as scenetrack "
            f"trains them. Received layers: {', '.join(layer.name for layer in network.layers)}"
        )


def check_classes(network: keras.Model, classes: int) -> None:
    """Raise ModelError unless the network tells ``classes`` classes apart."""
    if network.output_shape[-1] != classes:
        raise ModelError(
            f"a network for the data set's {classes} classes is required, but this one tells "
            f"{network.output_shape[-1]} apart: choose its own data set, or train another"
        )


def layer_table(network: keras.Model) -> str:
    """Return the layers of ``network`` with their types and output shapes, a line each."""
    rows = [
        (name, kind, " x ".join(str(length) for length in shape[1:]))
        for name, kind, shape in layer_names(network)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {kind.ljust(widths[1])}  {shape}" for name, kind, shape in rows
    )


def smallest_output(network: keras.Model, layers: Sequence[str], inputs: np.ndarray) -> float:
    """Return the smallest value that the layers give for ``inputs`` uint8 [N, S, S, 3]."""
    import keras

    part = keras.Model(network.inputs, joined_output(network, layers))
    return float(part.predict(inputs, verbose=0).min())


def check_never_negative(network: keras.Model, layers: Sequence[str], inputs: np.ndarray) -> None:
    """Raise ConfigError, before any training, where the layers' outputs have no square roots."""
    smallest = smallest_output(network, layers, inputs)
    if smallest < 0:
        raise ConfigError(
            f"square_root takes no negative values, but layer {', '.join(layers)} gives "
            f"them. Received: {smallest:.3g}; leave square_root out, or choose a layer with relu"
        )
