"""From the local descriptors of an image to one vector: reduction, encoding, pooling by region.

Everything here is fitted on a sample of training descriptors and then works on one batch of images
after another, so that no more descriptors than a batch's need to be in memory.
"""

from __future__ import annotations

from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.fisher import FisherVector
from scenetrack.encoders.pca import DescriptorPca
from scenetrack.encoders.pyramid import SpatialPyramid
from scenetrack.encoders.scene import ENCODERS, SceneEncoder
from scenetrack.encoders.vlad import Vlad
from scenetrack.encoders.words import BagOfWords

__all__ = [
    "ENCODERS",
    "BagOfWords",
    "DescriptorPca",
    "FisherVector",
    "LocalEncoder",
    "SceneEncoder",
    "SpatialPyramid",
    "Vlad",
]
