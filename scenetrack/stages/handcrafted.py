"""Dense SIFT, which learns nothing, with the encoders and SVMs that learnt descriptors get."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx

from scenetrack import __version__
from scenetrack.config import HandcraftedConfig
from scenetrack.descriptors.extraction import DescriptorExtractor
from scenetrack.descriptors.sift import SiftGrid, sift_graph
from scenetrack.graphs.digest import model_digest
from scenetrack.graphs.runtime import OnnxModel
from scenetrack.records import Model, Tag, TensorSpec, Tracker
from scenetrack.workflow.dataset import check_device, open_images
from scenetrack.workflow.encoding import EncodingMethods, check_pca, describe
from scenetrack.workflow.method_runs import MethodRuns, check_cross_validation
from scenetrack.workflow.result import StageResult


def handcrafted(config: HandcraftedConfig, tracker: Tracker) -> StageResult:
    """One parent run; a child run for each SVM kernel.

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
    check_cross_validation(images.dataset)
    metadata = {
        "classes": json.dumps(list(images.dataset.class_names)),
        "descriptor": "dense sift",
        "source_run": tracker.run_id,
        "scenetrack": __version__,
    }
    graph = sift_graph(grid, metadata)
    network = OnnxModel(
        graph.SerializeToString(), device=config.device, require_gpu=config.require_gpu
    )
    _log_network(graph, network, metadata, tracker)
    extractor = DescriptorExtractor(network, model_digest(graph), grid.positions)
    splits = describe(extractor, images, tracker)
    comparison = MethodRuns(config, images, tracker, unseen=False)
    EncodingMethods(config, splits, tracker).compare(comparison, name)
    return comparison.finish()


def _log_network(
    graph: onnx.ModelProto, network: OnnxModel, metadata: dict[str, str], tracker: Tracker
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors.onnx"
        path.write_bytes(graph.SerializeToString())
        inputs = [TensorSpec(name, "uint8", shape) for name, shape in network.inputs.items()]
        outputs = [
            TensorSpec(name, np.dtype(np.uint8).name, shape)
            for name, shape in network.outputs.items()
        ]
        tracker.log(
            Tag("onnx_provider", network.provider),
            Model("descriptors", path, inputs, outputs, metadata),
        )
