"""Dense SIFT, which learns nothing, with the encoders and SVMs that learnt descriptors get."""

from __future__ import annotations

import json

from scenetrack import __version__
from scenetrack.classifiers.folds import usable_folds
from scenetrack.config import HandcraftedConfig
from scenetrack.descriptors.extraction import DescriptorExtractor
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.graphs.digest import model_digest
from scenetrack.records import Tracker
from scenetrack.workflow.dataset import check_device, open_images
from scenetrack.workflow.descriptor_export import open_descriptor
from scenetrack.workflow.encoding import EncodingMethods, check_pca, describe
from scenetrack.workflow.method_runs import MethodRuns
from scenetrack.workflow.result import StageResult


def handcrafted(config: HandcraftedConfig, tracker: Tracker) -> StageResult:
    """Run the stage: one parent run, a child run for each SVM kernel.

    Raises:
        InputError: the data cannot be used, or a setting does not fit the descriptor.
    """
    check_device(config)
    grid = SiftGrid(
        config.image_size, config.step, config.bin_sizes, config.colour, config.smoothing
    )
    name = "dense sift" if config.colour == "grey" else f"dense sift {config.colour}"
    check_pca(config.pca, grid.width, name)
    images = open_images(config, tracker, config.image_size, validation=0.0)
    usable_folds(images.dataset.train.labels, images.dataset.class_names, folds=2)

    metadata = {
        "classes": json.dumps(list(images.dataset.class_names)),
        "descriptor": "dense sift",
        "source_run": tracker.run_id,
        "scenetrack": __version__,
    }
    graph = sift_graph(grid, metadata)
    onnx = open_descriptor(graph, config, tracker, dtype="uint8")
    splits = describe(
        DescriptorExtractor(onnx, model_digest(graph), grid.positions), images, tracker
    )

    methods = MethodRuns(config, images, tracker, network=False)
    EncodingMethods(config, splits, tracker).add_to(methods, name)
    return methods.finish()
