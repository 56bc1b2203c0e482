"""What surrounds a stage: its run, and what is said when it cannot go on."""

from __future__ import annotations

import re

import pytest
from mlflow import MlflowClient

from scenetrack import tracking
from scenetrack.config import HandcraftedConfig, StageConfig, TrainingConfig, TrainMlpConfig
from scenetrack.errors import StoreError
from scenetrack.networks.checkpoints import Checkpoint
from scenetrack.records import Tracker
from scenetrack.workflow import runner


def _locked_out(config: StageConfig, tracker: Tracker) -> None:
    if isinstance(config, TrainingConfig):
        Checkpoint.of_run(tracker.run_id).begin(config, "digest")
    raise StoreError("the store was locked")


@pytest.mark.parametrize("kind", [TrainMlpConfig, HandcraftedConfig])
def test_a_training_without_a_store_says_how_it_goes_on(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, kind: type[StageConfig]
) -> None:
    monkeypatch.setattr(runner, "stage_function", lambda stage: _locked_out)
    with pytest.raises(StoreError) as caught:
        runner.run(kind(experiment="no store"))
    experiment = tracking.experiment_named(client, "no store")
    (run, *_) = client.search_runs([experiment])
    assert run.info.status == "FAILED"
    go_on = f"; to go on from the last epoch: scenetrack train_mlp --resume {run.info.run_id}"
    told = str(caught.value)
    assert told == "the store was locked" + go_on * issubclass(kind, TrainingConfig)
    assert re.search("the store was locked", run.data.tags["error"])
