"""A stage with several seeds: what each child is given, and mean and spread by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from scenetrack.config import DataConfig, param
from scenetrack.errors import ConfigError, ScenetrackError
from scenetrack.records import MemoryTracker as Memory
from scenetrack.records import Metric, Param, Table, Tracker
from scenetrack.workflow.repeats import CHOSEN, repeated, spreads_of
from scenetrack.workflow.result import StageResult


@dataclass(frozen=True)
class Dice(DataConfig):
    stage: ClassVar[str] = "train_mlp"
    repeats: int = param(1, "Seeds.", low=1)


# Accuracies of the methods a and b on the test images, and of b in cross-validation, by seed.
THROWN: Mapping[int, tuple[float, float, float]] = {
    3: (0.50, 0.80, 0.7),
    4: (0.60, 0.84, 0.9),
    5: (0.70, 0.82, 0.8),
}


def throw(config: Dice, tracker: Tracker) -> StageResult:
    """A stage that chooses method b, but in the last seed a."""
    a, b, cv = THROWN[config.seed]
    methods = {"a": {"test/accuracy": a}, "b": {"test/accuracy": b, "cv/accuracy": cv}}
    with tracker.child("a"), tracker.child("b"):
        pass
    figures = {"test/accuracy": a if config.seed == 5 else b}
    return StageResult(f"run{config.seed}", f"seed {config.seed} done", {}, figures, methods)


def test_each_seed_is_a_child_with_children_and_settings_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parent = Memory()
    repeated(throw, Dice(seed=3, repeats=3), 3, parent)
    assert list(parent.children) == ["seed 3", "seed 4", "seed 5"]
    for seed, child in zip((3, 4, 5), parent.children.values(), strict=True):
        assert set(child.children) == {"a", "b"}
        params = {r.name: r.value for r in child.records if isinstance(r, Param)}
        assert (params["seed"], params["repeats"]) == (str(seed), "1")
    assert "seed 4 done" in capsys.readouterr().out


def test_mean_and_deviation_by_hand() -> None:
    parent = Memory()
    result = repeated(throw, Dice(seed=3, repeats=3), 3, parent)
    # Chosen are 0.80, 0.84, 0.70: mean 0.78, squares 0.0004 + 0.0036 + 0.0064 over 2.
    assert parent.metrics() == pytest.approx(
        {
            "test/accuracy": 0.78,
            "test/accuracy_std": 0.0052**0.5,
            "test/accuracy/a": 0.6,
            "test/accuracy_std/a": 0.1,
            "test/accuracy/b": 0.82,
            "test/accuracy_std/b": 0.02,
            "cv/accuracy/b": 0.8,
            "cv/accuracy_std/b": 0.1,
        }
    )
    assert result.metrics == parent.metrics()
    (table,) = [r for r in parent.records if isinstance(r, Table)]
    assert list(table.columns[:4]) == ["seed", "run", "method", "test/accuracy"]
    assert table.rows[3] == (4, "run4", "b", 0.84, None, 0.9)


def test_the_text_has_the_best_first_and_tells_what_to_ship() -> None:
    result = repeated(throw, Dice(seed=3, repeats=3), 3, Memory())
    lines = result.summary.splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert "validation" not in lines[0].replace("cross-validation", "")
    assert lines[2].split() == ["b", "82.0%", "±", "2.0%", "80.0%", "±", "10.0%"]
    assert lines[3].split() == ["a", "60.0%", "±", "10.0%"]
    assert lines[4].startswith(CHOSEN)
    assert "of 3 seeds (3, 4, 5)" in lines[5]
    assert lines[7:10] == ["seed 3: run run3", "seed 4: run run4", "seed 5: run run5"]
    assert lines[10] == "run memory; to ship one seed: scenetrack bundle run3 -o scene.onnx"


def test_a_method_that_one_seed_lacks_has_no_mean() -> None:
    one, other = ({"a": {"test/accuracy": 0.5}}, {"b": {"test/accuracy": 0.5}})
    results = {k: StageResult("", "", {}, {}, m) for k, m in enumerate((one, other))}
    assert spreads_of(results) == {CHOSEN: {}, "a": {}}


def test_a_seed_out_of_range_is_refused_before_anything_runs() -> None:
    parent = Memory()
    with pytest.raises(ConfigError, match="seed must be at most"):
        repeated(throw, Dice(seed=2**31 - 2, repeats=3), 3, parent)
    assert parent.children == {}


def test_a_failure_leaves_the_seeds_before_it() -> None:
    def breaking(config: Dice, tracker: Tracker) -> StageResult:
        if config.seed == 4:
            raise ScenetrackError("broke")
        tracker.log(Metric("test/accuracy", 1))
        return throw(config, tracker)

    parent = Memory()
    with pytest.raises(ScenetrackError, match="broke"):
        repeated(breaking, Dice(seed=3, repeats=3), 3, parent)
    assert parent.children["seed 3"].metrics() == {"test/accuracy": 1}
    assert list(parent.children) == ["seed 3", "seed 4"]
    assert parent.metrics() == {}
