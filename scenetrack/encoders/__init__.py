"""Encoders of local descriptors: PCA, bag of words, VLAD, Fisher vector, spatial pyramid.

All of them are fitted on a sample of training descriptors and then encode one batch of images
after another, so that the descriptors of one batch at most are in memory.
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
