"""Overhead of a study per trial: Optuna's storage, MLflow's runs, learning curves.

``python benchmarks/study_overhead.py [--trials 6] [--seconds 10]`` runs a study whose trials only
wait and log 60 epochs of 4 metrics, on a journal and on SQLite, with MLflow on SQLite, each in a
process and a folder of its own. The overhead of a trial is the time from its start to that of
the next, minus the time that it waited: so all work between trials counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import RESULTS, in_own_process, machine, table

EPOCHS, CURVES = 60, ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
STORAGES = {"journal file": "journal:studies.journal", "SQLite": "sqlite:///studies.db"}
LIMIT = 0.05


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Run the study of ``task``; return how long each trial but the last took and waited, in s."""
    from scenetrack.config import TuneConfig
    from scenetrack.records import metrics
    from scenetrack.stages.tune.study import tune
    from scenetrack.workflow.result import StageResult

    logging.disable(logging.INFO)
    begun: list[float] = []
    waited: list[float] = []

    def stage(config: Any, tracker: Any) -> StageResult:
        begun.append(time.perf_counter())
        pause = 0.0
        for epoch in range(EPOCHS):
            started = time.perf_counter()
            time.sleep(task["seconds"] / EPOCHS)
            pause += time.perf_counter() - started
            values = dict.fromkeys(CURVES, 0.5 + epoch / 1000)
            tracker.log(*metrics(values, epoch))
        waited.append(pause)
        return StageResult(tracker.run_id, "", metrics={"val/accuracy": 0.5 + len(begun) / 100})

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        config = TuneConfig(
            target="train_mlp",
            trials=task["trials"],
            storage=task["storage"],
            fixed=f"epochs={EPOCHS}",
            pruner="median",
            refit=False,
        )
        tune(config, lambda name: stage)
        os.chdir("/")
    periods = [later - earlier for earlier, later in itertools.pairwise(begun)]
    return {"periods": periods, "waited": waited[:-1]}


def overhead(result: dict[str, Any]) -> list[float]:
    """Return the seconds added to each trial."""
    return [taken - idle for taken, idle in zip(result["periods"], result["waited"], strict=True)]


def main() -> None:
    """Run both studies and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--task", type=json.loads)
    given = parser.parse_args()
    if given.task:
        print(json.dumps(run_task(given.task)))
        return
    where, rows = machine(), []
    for name, storage in STORAGES.items():
        task = {"storage": storage, "trials": given.trials, "seconds": given.seconds}
        added = overhead(in_own_process(__file__, task))
        share = statistics.median(added) / given.seconds
        rows.append(
            {
                "storage of the study": name,
                "trials": len(added),
                "added, median s": f"{statistics.median(added):.2f}",
                "least to most s": f"{min(added):.2f} to {max(added):.2f}",
                f"part of {given.seconds:g} s": f"{share:.1%}",
                f"below {LIMIT:.0%}": "yes" if share < LIMIT else "no",
            }
        )
    parts = [
        "# What a study and its tracking add to a trial",
        where,
        f"Trials that wait {given.seconds:g} s and log {EPOCHS} epochs of {len(CURVES)} metrics; "
        "MLflow on SQLite; one worker, TPE, median pruner. `python benchmarks/study_overhead.py`",
        table(rows),
    ]
    RESULTS.mkdir(exist_ok=True)
    text = "\n\n".join(parts) + "\n"
    (RESULTS / "study_overhead.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
