"""Registry of encoders of local descriptors: add a class in ``encoders/`` and an entry here.

It holds what help, settings and search spaces need, without the import of the class.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from scenetrack.config.dimensions import Dimension, choice, whole
from scenetrack.config.kernel_registry import KERNELS


@dataclass(frozen=True)
class Encoder:
    """An entry of the registry of encoders.

    Attributes:
        name: name on the command line.
        location: module and name of the class.
        codebook_sizes: name of the dimension in a study, smallest and largest ``codebook_size``.
        kernels: SVM kernels that ``--kernels auto`` stands for.
        signed: whether values of an encoding may be negative.
        sample_per_item: training descriptors for each visual word or component.
        settings: settings of ``EncodingConfig`` for this encoder alone, passed on to the class.
        space: dimensions of the search space besides the codebook size.
    """

    name: str
    location: str
    codebook_sizes: tuple[str, int, int]
    kernels: tuple[str, ...] = ("linear",)
    signed: bool = True
    sample_per_item: int = 100
    settings: tuple[str, ...] = ()
    space: tuple[Dimension, ...] = ()

    @property
    def title(self) -> str:
        """Name in runs and tables, such as "bag of words"."""
        return self.name.replace("_", " ")

    @property
    def kind(self) -> Any:
        """The class, imported on demand."""
        module, _, name = self.location.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def size_dimension(self) -> Dimension:
        """The dimension of ``codebook_size``, sampled for this encoder alone."""
        name, low, high = self.codebook_sizes
        when = {"encoder": (self.name,)}
        return whole(name, low, high, setting="codebook_size", log=True, when=when)


ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder(
            "bag_of_words",
            "scenetrack.encoders.bag_of_words:BagOfWords",
            codebook_sizes=("words", 256, 2048),
            kernels=tuple(KERNELS),
            signed=False,
            settings=("assignment", "tf_idf", "normalisation"),
            space=(choice("assignment", "hard", "soft", when={"encoder": ("bag_of_words",)}),),
        ),
        Encoder(
            "vlad",
            "scenetrack.encoders.vlad:Vlad",
            codebook_sizes=("centres", 16, 128),
        ),
        Encoder(
            "fisher_vector",
            "scenetrack.encoders.fisher_vector:FisherVector",
            codebook_sizes=("components", 32, 256),
            sample_per_item=2000,
        ),
    )
}
