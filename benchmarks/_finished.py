"""Finished runs to measure: named on the command line, or trained by the benchmark itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

DATA_HELP = "id of a run of patch_bow in the MLflow store in use; default: train one"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of benchmarks that measure a finished run."""
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--run", default="", help=DATA_HELP)
    parser.add_argument("--quick", action="store_true", help="a small network, few repeats")


@contextmanager
def finished_run(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Yield the id of a run, and a temporary folder.

    A run that is trained here is logged to a store of its own in that folder.
    """
    with TemporaryDirectory() as name:
        if args.run:
            yield args.run, Path(name)
            return
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        here = Path.cwd()
        os.chdir(name)
        try:
            yield _train(args.quick), Path(name)
        finally:
            os.chdir(here)


def data_name() -> str:
    """Return "mit8" if ``SCENETRACK_DATA`` names that split, else "demo"."""
    return "mit8" if os.environ.get("SCENETRACK_DATA") else "demo"


def _train(quick: bool) -> str:
    from scenetrack.config import PatchBowConfig
    from scenetrack.workflow import runner

    settings = PatchBowConfig(data=data_name())
    if quick:
        settings = PatchBowConfig(
            data="demo",
            epochs=1,
            hidden=(64,),
            codebook_size=32,
            image_size=64,
            whitening=32,
            pca=0,
        )
    return runner.run(settings).run_id
