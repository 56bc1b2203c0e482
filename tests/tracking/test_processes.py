"""Several processes on one store, and what the killed ones leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracked import start

from scenetrack import tracking
from scenetrack.config import TrainMlpConfig
from scenetrack.system.process_identity import process_tags

pytestmark = pytest.mark.usefixtures("client")


def test_a_killed_process_leaves_runs_that_the_next_start_closes(
    client: MlflowClient, store_folder: Path
) -> None:
    config = TrainMlpConfig(experiment="killed")
    child = subprocess.Popen(
        [sys.executable, "-c", _program("killed", "print('open', flush=True); time.sleep(600)")],
        cwd=store_folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        assert child.stdout.readline().strip() == "open"
        experiment = tracking.experiment_named(client, "killed")
        assert tracking.reconcile_stale_runs("killed") == []
        child.send_signal(signal.SIGKILL)
    stale = [run.info.run_id for run in client.search_runs([experiment])]
    assert len(stale) == 2  # the parent and its child
    moved = client.create_run(experiment, tags={**process_tags(), "host": "another"})
    with start(config):
        pass
    for run_id in stale:
        run = client.get_run(run_id)
        assert run.info.status == "FAILED"
        assert (run.data.tags["status"], run.data.tags["error"]) == ("failed", "process died")
    assert client.get_run(moved.info.run_id).info.status == "RUNNING"


def test_a_process_number_used_again_is_another_process(client: MlflowClient) -> None:
    experiment = tracking.experiment_named(client, "again")
    own = process_tags()
    earlier = {**own, "process": own["process"].rpartition(" ")[0] + " 1"}
    stale = client.create_run(experiment, tags=earlier).info.run_id
    alive = client.create_run(experiment, tags=own).info.run_id
    foreign = {**own, "process": "pid:[1] 1"}
    container = client.create_run(experiment, tags=foreign).info.run_id
    assert tracking.reconcile_stale_runs("again") == [stale]
    assert {client.get_run(i).info.status for i in (alive, container)} == {"RUNNING"}
    assert tracking.reconcile_stale_runs("never made") == []


@pytest.mark.parametrize("pid", ["x", "", "-1", str(10**30)])
def test_a_process_number_that_was_edited_is_left_alone(pid: str, client: MlflowClient) -> None:
    experiment = tracking.experiment_named(client, "edited")
    own = process_tags()
    run = client.create_run(experiment, tags={**own, "pid": pid, "process": own["process"] + "9"})
    assert tracking.reconcile_stale_runs("edited") == []
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_a_run_that_another_process_has_in_work_stays_its(client: MlflowClient) -> None:
    experiment = tracking.experiment_named(client, "shared")
    elsewhere = {**process_tags(), "host": "another"}
    shared = client.create_run(experiment, tags=elsewhere).info.run_id
    tracking.run_again(shared)
    tracking.stop_run(shared, KeyboardInterrupt())
    run = client.get_run(shared)
    assert (run.info.status, run.data.tags["host"]) == ("RUNNING", "another")
    client.set_terminated(shared, "FAILED")
    tracking.run_again(shared)
    run = client.get_run(shared)
    assert (run.info.status, run.data.tags["host"]) == ("RUNNING", process_tags()["host"])
    tracking.stop_run(shared, KeyboardInterrupt())
    run = client.get_run(shared)
    assert (run.info.status, run.data.tags["error"]) == ("KILLED", "interrupted (Ctrl-C)")


def test_end_resumed_closes_a_killed_run_and_leaves_an_ended_one(client: MlflowClient) -> None:
    killed = client.create_run("0").info.run_id
    with start() as ended:
        pass
    for run_id in (killed, ended.run_id):
        tracking.end_resumed(run_id, "new")
        assert client.get_run(run_id).data.tags["resumed_by"] == "new"
    assert client.get_run(killed).info.status == "FAILED"
    assert client.get_run(ended.run_id).info.status == "FINISHED"


def _program(experiment: str, body: str) -> str:
    """A process that opens a run and a child in ``experiment`` and does ``body`` inside."""
    text = f"""
        import time
        from scenetrack import tracking
        from scenetrack.config import TrainMlpConfig
        from scenetrack.records import Metric
        config = TrainMlpConfig(experiment={experiment!r})
        with tracking.open_run(config, name="p", tags={{"stage": "train_mlp"}}) as parent:
            with parent.child("kid") as kid:
                {body}
    """
    return textwrap.dedent(text)


def test_four_processes_may_meet_a_fresh_store(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    program = _program("together", "kid.log(*(Metric('m', n, n) for n in range(50)))")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(outputs)
    assert outputs == [""] * 4
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = store.search_runs([store.get_experiment_by_name("together").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert sum(run.data.metrics.get("m") == 49 for run in runs) == 4
    assert runs[0].info.artifact_uri.startswith(str(tmp_path / "mlruns"))
