"""From the local descriptors of an image to one vector: reduction, encoding, pooling by region.

Everything here is fitted on a sample of training descriptors and then works on one batch of images
after another, so that no more descriptors than a batch's need to be in memory.
"""

from __future__ import annotations

from scenetrack.encoders.bag_of_words import BagOfWords
from scenetrack.encoders.base import LocalEncoder
from scenetrack.encoders.fisher_vector import FisherVector
from scenetrack.encoders.image_encoder import ImageEncoder
from scenetrack.encoders.pca import DescriptorPca
from scenetrack.encoders.pyramid import SpatialPyramid
from scenetrack.encoders.vlad import Vlad

__all__ = [
    "BagOfWords",
    "DescriptorPca",
    "FisherVector",
    "ImageEncoder",
    "LocalEncoder",
    "SpatialPyramid",
    "Vlad",
]
