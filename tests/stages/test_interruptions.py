"""Trainings that are stopped in the middle: what stays of them, and how they go on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from mlflow import entities
from workplace import TINY_MLP, TINY_PATCHES, Workplace, finished

from scenetrack import cli
from scenetrack.config import TrainMlpConfig
from scenetrack.networks.checkpoints import Checkpoint

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}
FINAL = ("test/accuracy", "test/accuracy_low", "test/accuracy_high", "test/macro_f1")


@dataclass(frozen=True)
class Stopped:
    """A training that was stopped: exit code, stderr, run, and the curves of its checkpoint."""

    code: int
    err: str
    run: entities.Run
    saved: Mapping[str, list[float]]


def _signal_after_first_epoch(
    workplace: Workplace, processes: Mapping[str, subprocess.Popen[str]]
) -> None:
    """Send each process, named ``SIGNAL STAGE`` like its experiment, its signal."""
    waiting = set(processes)
    end = time.monotonic() + 200
    while waiting:
        for name in sorted(waiting):
            assert processes[name].poll() is None, processes[name].communicate()
            if workplace.has_logged_an_epoch(name):
                processes[name].send_signal(signal.Signals[name.split()[0]])
                waiting.remove(name)
        assert time.monotonic() < end, f"no epoch was logged: {waiting}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def stopped(workplace: Workplace, twins: object) -> dict[str, Stopped]:
    """Trainings stopped by a signal after their first epoch, side by side to save time."""
    names = [*(f"{name} train_mlp" for name in SIGNALS), "SIGKILL patch_bow"]
    forgetful = replace(workplace, keeps=False)
    processes = {name: forgetful.start_training(name.split()[1], name) for name in names}
    try:
        _signal_after_first_epoch(workplace, processes)
        ended = {name: process.communicate(timeout=60) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    return {
        name: _outcome(workplace, name, processes[name].returncode, err)
        for name, (_, err) in ended.items()
    }


def _outcome(workplace: Workplace, experiment: str, code: int, err: str) -> Stopped:
    (run,) = workplace.runs(experiment)
    state = Checkpoint(workplace.cache / "checkpoints" / run.info.run_id).load()
    return Stopped(code, err, run, state.history if state else {})


@pytest.fixture(scope="session")
def resumed(workplace: Workplace, stopped: dict[str, Stopped]) -> dict[str, entities.Run]:
    """Both killed trainings gone on with: train_mlp by its run alone, patch_bow all told again."""
    killed = {stage: stopped[f"SIGKILL {stage}"].run for stage in ("train_mlp", "patch_bow")}
    mlp, patches = (run.info.run_id for run in killed.values())
    processes = (
        workplace.start("scenetrack", "train_mlp", "--resume", mlp),
        workplace.start_training("patch_bow", "SIGKILL patch_bow", "--resume", patches),
    )
    for process in processes:
        finished(process)
    return {stage: workplace.runs(f"SIGKILL {stage}")[1] for stage in killed}


@pytest.mark.parametrize("name", SIGNALS)
def test_exit_code_tells_the_signal(stopped: dict[str, Stopped], name: str) -> None:
    assert stopped[f"{name} train_mlp"].code == SIGNALS[name]


@pytest.mark.parametrize(("name", "word"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
def test_a_stopped_run_says_so(stopped: dict[str, Stopped], name: str, word: str) -> None:
    one = stopped[f"{name} train_mlp"]
    assert one.err.splitlines()[-1] == word
    assert "Traceback" not in one.err
    assert one.run.info.status == "KILLED"
    tags = one.run.data.tags
    assert tags["status"] == "failed"
    assert tags["error"].startswith(word)


@pytest.mark.parametrize("name", SIGNALS)
def test_finished_epochs_are_logged_and_kept(
    workplace: Workplace, stopped: dict[str, Stopped], twins: tuple[entities.Run, ...], name: str
) -> None:
    one = stopped[f"{name} train_mlp"]
    for curve in ("train/loss", "val/accuracy"):
        logged = workplace.curve(one.run, curve)
        uninterrupted = workplace.curve(twins[0], curve)
        assert 1 <= len(logged) < len(uninterrupted)
        assert logged == uninterrupted[: len(logged)]
        # The signal may come after an epoch was saved and before it was logged.
        assert len(one.saved[curve]) - len(logged) in (0, 1)
        assert one.saved[curve] == uninterrupted[: len(one.saved[curve])]


@pytest.mark.parametrize("curve", ["train/loss", "train/accuracy", "val/loss", "val/accuracy"])
def test_resumed_curves_are_those_of_an_uninterrupted_training(
    workplace: Workplace,
    resumed: dict[str, entities.Run],
    twins: tuple[entities.Run, ...],
    curve: str,
) -> None:
    expected = workplace.curve(twins[0], curve)
    assert len(expected) == int(TINY_MLP["epochs"])
    assert workplace.curve(resumed["train_mlp"], curve) == expected


def test_resumed_training_ends_with_the_same_test_figures(
    resumed: dict[str, entities.Run], twins: tuple[entities.Run, ...]
) -> None:
    expected = {name: twins[0].data.metrics[name] for name in FINAL}
    assert {name: resumed["train_mlp"].data.metrics[name] for name in FINAL} == expected


@pytest.mark.parametrize("stage", ["train_mlp", "patch_bow"])
def test_the_two_runs_name_each_other(
    here: Workplace, stopped: dict[str, Stopped], resumed: dict[str, entities.Run], stage: str
) -> None:
    killed = here.client.get_run(stopped[f"SIGKILL {stage}"].run.info.run_id)
    assert killed.info.status == "FAILED"
    assert killed.data.tags["resumed_by"] == resumed[stage].info.run_id
    assert resumed[stage].data.tags["resumed_from"] == killed.info.run_id
    assert resumed[stage].data.tags["status"] == "completed"
    for run in (killed, resumed[stage]):
        assert not Checkpoint.of_run(run.info.run_id).folder.exists()


def test_resumed_patch_bow_is_the_uninterrupted_one(
    workplace: Workplace,
    stopped: dict[str, Stopped],
    resumed: dict[str, entities.Run],
    project_run: entities.Run,
) -> None:
    began = workplace.curve(stopped["SIGKILL patch_bow"].run, "patch/train/loss")
    expected = workplace.curve(project_run, "patch/train/loss")
    assert 1 <= len(began) < len(expected) == int(TINY_PATCHES["epochs"])
    assert workplace.curve(resumed["patch_bow"], "patch/train/loss") == expected
    mine, other = workplace.children(resumed["patch_bow"]), workplace.children(project_run)
    assert set(mine) == set(other)
    for name, run in mine.items():
        assert _untimed(run) == _untimed(other[name])


def test_the_same_seed_at_the_same_time_gives_the_same_figures(
    twins: tuple[entities.Run, entities.Run],
) -> None:
    first, second = twins
    assert first.info.run_id != second.info.run_id
    assert _untimed(first) == _untimed(second)


def _untimed(run: entities.Run) -> dict[str, float]:
    return {k: v for k, v in run.data.metrics.items() if not k.startswith("time/")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "7"], "epochs is 60 in run"),
        (["--hidden", "25"], "hidden is 24,12 in run"),
        (["--seed", "1"], "seed is 0 in run"),
        (["--dropout", str(TrainMlpConfig().dropout)], "dropout is 0.3 in run"),
    ],
)
def test_resume_keeps_its_settings(
    here: Workplace,
    stopped: dict[str, Stopped],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    run_id = stopped["SIGINT train_mlp"].run.info.run_id
    place = ["--data", str(here.data), "--experiment", "SIGINT train_mlp"]
    assert cli.main(["train_mlp", *place, "--resume", run_id, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a resumed training keeps its settings:")
    assert said in line


def test_a_terminated_training_goes_on_too(
    here: Workplace,
    stopped: dict[str, Stopped],
    twins: tuple[entities.Run, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = stopped["SIGTERM train_mlp"].run.info.run_id
    assert cli.main(["train_mlp", "--resume", run_id]) == 0, capsys.readouterr().err
    terminated, resumed = here.runs("SIGTERM train_mlp")
    assert terminated.info.status == "KILLED"
    assert terminated.data.tags["resumed_by"] == resumed.info.run_id
    assert here.curve(resumed, "val/loss") == here.curve(twins[0], "val/loss")
    assert here.client.get_run(run_id).data.params["epochs"] == TINY_MLP["epochs"]


def test_resume_by_another_stage(
    here: Workplace, stopped: dict[str, Stopped], capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = stopped["SIGINT train_mlp"].run.info.run_id
    assert cli.main(["patch_bow", "--resume", run_id]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not one of patch_bow" in line


def test_resume_of_a_finished_run(
    here: Workplace, twins: tuple[entities.Run, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train_mlp", "--resume", twins[0].info.run_id]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no checkpoint on this machine" in line
