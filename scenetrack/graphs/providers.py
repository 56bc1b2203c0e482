"""Execution providers of ONNX Runtime: which to try for a device, and their options."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from contextlib import redirect_stdout
from typing import Any, TypeAlias

from scenetrack.graphs.files import ModelFile
from scenetrack.system.files import cache_dir

logger = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# Set to 1 to let TensorRT go before CUDA. It is not taken by itself: it compiles an engine for
# each model and again for shapes it has not met, which takes minutes, and it computes in TF32.
TENSORRT_SWITCH = "SCENETRACK_TENSORRT"

Providers: TypeAlias = list[str | tuple[str, dict[str, str]]]


def provider_lists(ort: Any, device: str, file: ModelFile) -> list[Providers]:
    """What to try in turn, the CPU last: each with what takes over the operators it lacks.

    Args:
        ort: the module onnxruntime.
        device: "auto", "cpu" or "gpu".
        file: the model, by which TensorRT's engines are kept.
    """
    available = ort.get_available_providers()
    if device == "cpu" or CUDA not in available:
        return [[CPU]]
    # CUDA's libraries may come as Python packages, which the loader does not find by itself; the
    # call prints what it misses, and a missing GPU is reported by its provider anyway.
    with redirect_stdout(io.StringIO()) as output:
        ort.preload_dlls()
    logger.debug("preloading CUDA: %s", output.getvalue())
    # TF32 keeps 10 bits of the mantissa: descriptors would differ between the GPU and the CPU by
    # more than an export is allowed to differ from its network.
    cuda: Providers = [(CUDA, {"use_tf32": "0"}), CPU]
    if TENSORRT not in available or os.environ.get(TENSORRT_SWITCH) != "1":
        return [cuda, [CPU]]
    return [[(TENSORRT, _tensorrt_options(file)), *cuda], cuda, [CPU]]


def _tensorrt_options(file: ModelFile) -> dict[str, str]:
    options = {
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache_dir("tensorrt")),
    }
    # ONNX Runtime knows an engine by its graph's names, not by its weights: without a folder for
    # each model a network trained anew would run with the old one's. Digests of external data
    # would take reading them.
    if file.folder is None:
        digest = hashlib.sha256(file.content).hexdigest()[:16]
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache_dir("tensorrt", digest)),
        }
    return options
