"""Record the behaviour of every command on the demo data, and compare two such records.

A refactoring has to leave figures, tags, artifacts and messages unchanged.

    python benchmarks/behaviour.py record before.json      # some minutes
    git switch my-change
    python benchmarks/behaviour.py record after.json
    python benchmarks/behaviour.py compare before.json after.json

``--package FOLDER`` records another checkout. Run ids, times and folders differ from run to run
and are masked; everything else is compared to the last digit.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_TINY_MLP = ["--hidden", "32,16", "--epochs", "3", "--image-size", "16"]
_TINY_PATCHES = [
    "--image-size", "48", "--patch-size", "8", "--stride", "8", "--hidden", "32", "--epochs", "2",
    "--whitening", "32", "--form", "conv", "--pca", "16", "--codebook-size", "16",
    "--patches-per-image", "10",
]  # fmt: skip
_TINY_SIFT = ["--image-size", "64", "--bin-sizes", "4,6", "--pca", "16", "--codebook-size", "16"]

# A name in braces stands for the id of the run that the command of this name opened.
COMMANDS: Mapping[str, Sequence[str]] = {
    "train_mlp": ["train_mlp", *_TINY_MLP],
    "untested": ["train_mlp", *_TINY_MLP, "--test", "false", "--seed", "3"],
    "repeats": ["train_mlp", *_TINY_MLP, "--repeats", "2"],
    "layer_svm": ["layer_svm", *_TINY_MLP, "--kernels", "linear,rbf,chi2", "--activation", "relu"],
    "taken": ["layer_svm", "--model", "{train_mlp}", "--image-size", "16"],
    "words": ["patch_bow", *_TINY_PATCHES, "--pyramid", "1x1,2x2", "--tf-idf", "true"],
    "fisher": ["patch_bow", *_TINY_PATCHES, "--encoder", "fisher_vector", "--position", "1",
               "--scales", "1,0.5", "--refit-encoder", "true", "--folds", "3"],
    "soft": ["patch_bow", *_TINY_PATCHES, "--assignment", "soft", "--kernels", "linear",
             "--normalisation", "hellinger", "--validation", "0", "--aggregation", "vote"],
    "sift_vlad": ["handcrafted", *_TINY_SIFT, "--encoder", "vlad", "--colour", "opponent"],
    "sift_words": ["handcrafted", *_TINY_SIFT, "--square-root", "true", "--kernels", "rbf,chi2"],
    "activations": ["activations", "{image}", "--layer", "hidden_1", "--model", "{train_mlp}"],
    "layers": ["activations", "--layer", "list", "--model", "{words}"],
    "tune": ["tune", "--target", "train_mlp", "--trials", "3", *_TINY_MLP[2:]],
    "tune_sift": ["tune", "--target", "handcrafted", "--trials", "2", *_TINY_SIFT[:4],
                  "--objectives", "accuracy,latency", "--fixed", "codebook_size=8; pca=8"],
    "space": ["tune", "--target", "patch_bow", "--show-space", "true"],
    "compare": ["compare", "{words}", "{fisher}", "{sift_vlad}", "-o", "comparison"],
    "export": ["export", "{words}", "--dense", "true", "--form", "conv",
               "--precision", "int8", "-o", "layer.onnx"],
    "bundle": ["bundle", "{fisher}", "-o", "scene.onnx"],
    "bundle_mlp": ["bundle", "{train_mlp}", "-o", "mlp.onnx"],
    "predict": ["predict", "scene.onnx", "{folder}", "-o", "labels.csv", "--explain", "maps"],
    "predict_run": ["predict", "{sift_words}", "{image}"],
    "data": ["data", "check", "demo"],
    "refused": ["patch_bow", "--pyramid", "9x9"],
    "help": ["patch_bow", "--help"],
    "main": ["main"],
}  # fmt: skip
_QUICK_LEAVES_OUT = ("main",)

_RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
_TIME = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?(?= ?(?:ms|s|MB|img/s|it/s)\b)")
_LATENCY = re.compile(r"(?<=%, )\d\.\d+|(?<=%  )\d\.\d+")
_TIMED = re.compile(r"^time/|_ms$|_per_s$|latency")
_OWN_TAGS = re.compile(
    r"^mlflow\.(user|source|parentRunId|runName|log-model|runColor)|host|process|^pid$"
)


def main() -> int:
    """Record or compare, depending on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    record = actions.add_parser("record")
    record.add_argument("output", type=Path)
    record.add_argument("--package", type=Path, default=Path(__file__).resolve().parent.parent)
    record.add_argument("--quick", action="store_true", help="skip the longest command")
    record.add_argument("--folder", type=Path, help="work in this folder and keep it")
    compare = actions.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.action == "record":
        left_out = _QUICK_LEAVES_OUT if given.quick else ()
        with tempfile.TemporaryDirectory() as name:
            folder = (given.folder or Path(name)).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            found = recorded(given.package, folder, left_out)
        given.output.write_text(json.dumps(found, indent=1, sort_keys=True))
        return 0
    before, after = (json.loads(path.read_text()) for path in (given.before, given.after))
    differences = list(differing(before, after))
    print("\n".join(differences) or f"all {len(after)} commands do the same")
    return 1 if differences else 0


def recorded(package: Path, folder: Path, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Run the commands; return what each of them printed, logged and wrote, by its name."""
    found: dict[str, Any] = {}
    ids: dict[str, str] = {}
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.resolve()),
        "SCENETRACK_CACHE": str(folder / "cache"),
        "PYTHONHASHSEED": "0",
    }
    for command, words in COMMANDS.items():
        if command in left_out:
            continue
        print(command, flush=True)
        known = _runs(folder)
        values = {**ids, **_demo_images(folder)}
        filled = [values.get(word[1:-1], word) if word[:1] == "{" else word for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "scenetrack", *filled],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        new = [run for run in _runs(folder) if run not in known]
        ids[command] = next((run for run in new if not _parent(folder, run)), "")
        found[command] = {
            "exit code": done.returncode,
            "output": _masked(done.stdout, folder),
            "messages": _messages(done.stderr, folder),
            "runs": [_run(folder, run) for run in new],
        }
    found["files"] = _files(folder)
    return found


def differing(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each difference between two records."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from differing(before.get(key), after.get(key), f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differing(old, new, f"{path}[{index}]")
    elif before != after:
        yield f"{path}: {before!r} -> {after!r}"


def _demo_images(folder: Path) -> dict[str, str]:
    images = sorted((folder / "cache").glob("demo*/**/test/*/*.*"))
    if not images:
        return {}
    return {"image": str(images[0]), "folder": str(images[0].parent)}


def _query(folder: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    store = folder / "mlflow.db"
    if not store.exists():
        return []
    with sqlite3.connect(store) as connection:
        return connection.execute(query, values).fetchall()


def _runs(folder: Path) -> list[str]:
    query = "select run_uuid from runs order by start_time, rowid"
    return [row[0] for row in _query(folder, query)]


def _parent(folder: Path, run: str) -> str:
    query = "select value from tags where run_uuid = ? and key = 'mlflow.parentRunId'"
    return next((row[0] for row in _query(folder, query, run)), "")


def _run(folder: Path, run: str) -> dict[str, Any]:
    about = "select name, status, artifact_uri from runs where run_uuid = ?"
    name, status, artifacts = _query(folder, about, run)[0]
    params = "select key, value from params where run_uuid = ?"
    tags = "select key, value from tags where run_uuid = ?"
    metrics = "select key, step, value from metrics where run_uuid = ? order by key, step, value"
    curves: dict[str, list[Any]] = {}
    for key, step, value in _query(folder, metrics, run):
        curves.setdefault(key, []).append([step, None if _TIMED.search(key) else value])
    return {
        "name": name,
        "status": status,
        "depth": bool(_parent(folder, run)),
        "params": {k: _masked(v, folder) for k, v in _query(folder, params, run)},
        "tags": {
            key: _masked(value, folder)
            for key, value in _query(folder, tags, run)
            if not _OWN_TAGS.search(key)
        },
        "metrics": curves,
        "artifacts": _artifacts(Path(artifacts.removeprefix("file://"))),
    }


def _artifacts(root: Path) -> dict[str, str]:
    """Return the names of a run's artifacts, with digests of arrays, texts and predictions."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            name = _RUN_ID.sub("RUN", path.relative_to(root).as_posix())
            same = path.suffix in (".npz", ".txt") or path.name == "predictions.csv"
            found[name] = _content(path) if same else ""
    return found


def _content(path: Path) -> str:
    """Return a digest of a file; that of an .npz file depends on its arrays alone."""
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            parts = [f"{key} {arrays[key].dtype} {arrays[key].tobytes().hex()}" for key in arrays]
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _files(folder: Path) -> dict[str, Any]:
    """Return the files that commands wrote into the working folder, with the content of tables."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or inside.parts[0] in ("cache", "mlruns", "mlflow.db"):
            continue
        found[inside.as_posix()] = ""
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                found[inside.as_posix()] = [
                    [_masked(cell, folder) for cell in row] for row in csv.reader(file)
                ]
        elif path.suffix == ".npz":
            found[inside.as_posix()] = _content(path)
    return found


def _masked(text: str, folder: Path) -> str:
    text = _RUN_ID.sub("RUN", str(text).replace(str(folder), "FOLDER"))
    text = re.sub(r"m-RUN", "MODEL", text)
    text = _LATENCY.sub("LATENCY", text)
    return _TIME.sub("TIME", text)


def _messages(text: str, folder: Path) -> list[str]:
    """Return the lines of stderr without progress bars."""
    lines = [line.split("\r")[-1] for line in _masked(text, folder).splitlines()]
    return [line for line in lines if "%|" not in line]


if __name__ == "__main__":
    sys.exit(main())
