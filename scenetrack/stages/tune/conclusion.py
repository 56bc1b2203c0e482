"""The conclusion of a study: its plots and figures, the best trials, and the refit of one."""

from __future__ import annotations

import logging
import math
import shlex
import textwrap

import optuna
from optuna.trial import FrozenTrial, TrialState

from scenetrack import tracking
from scenetrack.config import TuneConfig
from scenetrack.config.parsing import flag_name
from scenetrack.errors import ScenetrackError
from scenetrack.evaluation.comparison import aligned
from scenetrack.records import Figure, Metric, Tag, Text
from scenetrack.stages.tune.context import StudyContext
from scenetrack.stages.tune.refit import RefitElsewhere, refit
from scenetrack.system.files import cache_dir, lock
from scenetrack.system.foreign import parsed_json
from scenetrack.tuning.trial_state import count_outcomes, saved_seconds
from scenetrack.tuning.worker import SETTINGS
from scenetrack.workflow.result import StageResult

logger = logging.getLogger(__name__)

_SHOWN, _SHOWN_OF_FRONT = 5, 20
# Characters of the settings in a table's row.
_DRAWN_SHOWN = 80
_HEADS = {"accuracy": "accuracy", "parameters": "parameters", "latency": "ms an image"}


def conclude(context: StudyContext) -> StageResult:
    """Log what the study found, refit its best settings once, and end its run.

    Processes that come here at once wait for each other, and the first one does the work. That of
    another machine is not waited for: it ends the study's run.

    Raises:
        ScenetrackError: no trial is complete, or the refit failed.
    """
    study, config, run_id = context.study, context.config, context.run_id
    with lock(cache_dir("studies") / run_id):
        # The process that held the lock may have died in the midst of its refit.
        tracking.reconcile_stale_runs(config.experiment)
        best = best_trial(study)
        tracker = tracking.join_run(run_id)
        tracker.log(*_records(study, config, best), *_pictures(study, config, best))
        text = [summary(study, config, best)]
        figures: dict[str, float] = {}
        try:
            if config.refit:
                refitted, figures = refit(context, best, tracker)
                text.append(refitted)
            tracking.finish_run(run_id)
        except RefitElsewhere as elsewhere:
            text.append(str(elsewhere))
    return StageResult(run_id, "\n".join([*text, f"run {run_id}"]), metrics=figures)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Return the most accurate complete trial.

    Raises:
        ScenetrackError: none is complete.
    """
    complete = _best_first(study)
    if not complete:
        raise ScenetrackError(
            f"study {study.study_name!r} has no complete trial: every one failed or was stopped; "
            "see their runs, and choose other ranges with --space or another --study"
        )
    return complete[0]


def summary(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> str:
    """Return the best trials as a table, how the others ended, and the best one's flags."""
    several = len(config.objectives) > 1
    rows = [
        [
            str(trial.number),
            *map(_value_text, config.objectives, trial.values),
            textwrap.shorten(_drawn_text(trial), _DRAWN_SHOWN, placeholder=" ..."),
        ]
        for trial in _best_first(study)[: _SHOWN_OF_FRONT if several else _SHOWN]
    ]
    heads = ["trial", *(_HEADS[name] for name in config.objectives), "settings"]
    lines = aligned([heads, *rows], left=(0, len(heads) - 1))
    if several:
        lines.insert(0, "inside train, the trials that no other beats in everything:")
    ended = count_outcomes(study)
    lines.append(
        f"{ended['complete']} complete, {ended['pruned']} stopped early (saving "
        f"{saved_seconds(study.get_trials(deepcopy=False)):.0f} s), {ended['failed']} failed"
        + f", {ended['impossible']} with impossible settings"
        * bool(ended["impossible"])
    )
    if ended["complete"] > 1:
        lines.append(
            f"trial {best.number} is the best of {ended['complete']} by these figures, which are "
            "therefore optimistic: the test of its refit is not"
        )
    settings: dict[str, str] = parsed_json(best.user_attrs[SETTINGS])
    words = [f"{flag_name(name)} {shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, f"trial {best.number}: {' '.join(words)}"])


def _best_first(study: optuna.Study) -> list[FrozenTrial]:
    """Sort complete trials by accuracy; of several objectives those that no other beats in all."""
    if len(study.directions) > 1:
        found = study.best_trials
    else:
        found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = [trial for trial in found if all(map(math.isfinite, trial.values))]
    return sorted(found, key=lambda trial: (-trial.values[0], trial.number))


def _value_text(objective: str, value: float) -> str:
    texts = {"accuracy": f"{value:.1%}", "parameters": f"{value:,.0f}"}
    return texts.get(objective, f"{value:.3g}")


def _drawn_text(trial: FrozenTrial) -> str:
    return " ".join(f"{name}={_text(value)}" for name, value in trial.params.items())


def _records(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> list[Metric | Tag]:
    names = [f"objective/{name}" for name in config.objectives]
    figures = dict(zip(names, best.values, strict=True)) | {"val/accuracy": best.values[0]}
    figures |= {f"trials/{name}": float(count) for name, count in count_outcomes(study).items()}
    figures["time/saved_s"] = saved_seconds(study.get_trials(deepcopy=False))
    return [
        *(Metric(name, value) for name, value in figures.items()),
        Tag("best_trial", str(best.number)),
        Tag("validation_also_chose", "trial"),
        *(Tag(f"best.{name}", _text(value)) for name, value in best.params.items()),
    ]


def _pictures(study: optuna.Study, config: TuneConfig, best: FrozenTrial) -> list[Figure | Text]:
    from scenetrack.tuning.html import study_page
    from scenetrack.tuning.plots import study_figures

    return [
        *study_figures(study, config.objectives),
        study_page(study, config.objectives, best),
    ]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
