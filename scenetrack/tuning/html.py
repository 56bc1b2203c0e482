"""Interactive HTML report of a study (Plotly), in one file that works offline."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from scenetrack.records import Text
from scenetrack.tuning.plots import INSIDE_TRAIN, unmet_requirements, varied_parameters
from scenetrack.tuning.trial_state import count_outcomes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_NAME = "study.html"
_SLICE_WIDTH, _AXIS_WIDTH, _NARROWEST = 260, 150, 700

_CAPTIONS: Mapping[str, tuple[str, str]] = {
    "history": (
        "Optimisation history",
        "Accuracy inside train of each complete trial, and the best accuracy so far.",
    ),
    "pareto_front": (
        "Pareto front",
        "No other trial is better than a trial of the front in every objective.",
    ),
    "importances": (
        "Importance of the settings",
        "Share of the differences in accuracy that each setting explains. This is an estimate: "
        "more trials make it more reliable.",
    ),
    "parallel_coordinates": (
        "Settings of each trial",
        "Each line is a trial. Drag along an axis to select the trials that cross it there; drag "
        "a name to move its axis.",
    ),
    "slice": (
        "Accuracy over the values of each setting",
        "Each point is a trial; later trials are darker.",
    ),
    "intermediate_values": (
        "Validation curves",
        "Validation accuracy after each epoch; a training whose curve ends early was stopped.",
    ),
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto;
  padding: 0 1em; }
h1, h2 { line-height: 1.2; margin: 1.6em 0 0.3em; }
p { margin: 0.3em 0 0.8em; }
.picture { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { text-align: left; padding: 0.15em 1.5em 0.15em 0; border-bottom: 1px solid #e5e5e5;
  font-variant-numeric: tabular-nums; }
"""


def study_page(study: optuna.Study, objectives: Sequence[str], best: FrozenTrial) -> Text:
    """Return the page ``study.html``: the best trial, and each plot that has enough trials.

    The page works without a network connection: it contains plotly.js (about 5 MB) once.

    Args:
        study: study whose first objective is the accuracy inside train.
        objectives: names of the objectives.
        best: trial whose values and settings are listed.
    """
    from plotly.offline import get_plotlyjs

    title = f"Study {study.study_name}"
    unmet = unmet_requirements(study)
    sections = [
        _section(name, _plot(name, study, objectives))
        for name in _CAPTIONS
        if unmet.get(name) == ""
    ]
    return Text(
        _NAME,
        "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>",
                f"<script>{get_plotlyjs()}</script>\n</head>\n<body>",
                f"<h1>{html.escape(title)}</h1>",
                _best_trial(study, objectives, best),
                *sections,
                "</body>\n</html>\n",
            ]
        ),
    )


def _best_trial(study: optuna.Study, objectives: Sequence[str], best: FrozenTrial) -> str:
    words = {"pruned": "stopped early", "impossible": "with impossible settings"}
    outcomes = ", ".join(
        f"{count} {words.get(how, how)}" for how, count in count_outcomes(study).items()
    )
    values = {
        INSIDE_TRAIN if name == "accuracy" else name: f"{value:.2%}"
        if name == "accuracy"
        else f"{value:,.4g}"
        for name, value in zip(objectives, best.values, strict=True)
    }
    rows = {**values, **{name: _formatted(value) for name, value in best.params.items()}}
    cells = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    heading = f"<p>Trials: {outcomes}.</p>\n<h2>Best trial: {best.number}</h2>"
    return f"{heading}\n<table>\n{cells}\n</table>"


def _section(name: str, figure: Figure) -> str:
    heading, caption = _CAPTIONS[name]
    figure.update_layout(title=None, template="plotly_white", margin={"t": 40})
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name)
    return f'<h2>{heading}</h2>\n<p>{caption}</p>\n<div class="picture">{drawn}</div>'


def _plot(name: str, study: optuna.Study, objectives: Sequence[str]) -> Figure:
    with _without_optuna_warnings():
        if name == "pareto_front":
            from optuna.visualization import plot_pareto_front

            return plot_pareto_front(study, target_names=list(objectives))
        return _PLOTS[name](study)


def _history(study: optuna.Study) -> Figure:
    from optuna.visualization import plot_optimization_history

    return plot_optimization_history(study, **_target(study))


def _importances(study: optuna.Study) -> Figure:
    from optuna.visualization import plot_param_importances

    figure = plot_param_importances(
        study, target=lambda trial: -trial.values[0], target_name=INSIDE_TRAIN
    )
    return figure.update_layout(height=max(350, 120 + 24 * len(figure.data[0].y)))


def _slice(study: optuna.Study) -> Figure:
    from optuna.visualization import plot_slice

    names = varied_parameters(study.get_trials(deepcopy=False))
    figure = plot_slice(study, params=names, **_target(study))
    return figure.update_layout(width=max(_NARROWEST, _SLICE_WIDTH * len(names)), height=400)


def _parallel_coordinates(study: optuna.Study) -> Figure:
    from optuna.visualization import plot_parallel_coordinate

    names = varied_parameters(study.get_trials(deepcopy=False))
    figure = plot_parallel_coordinate(study, params=names, **_target(study))
    return figure.update_layout(width=max(_NARROWEST, _AXIS_WIDTH * len(names)), height=520)


def _intermediate_values(study: optuna.Study) -> Figure:
    from optuna.visualization import plot_intermediate_values

    figure = plot_intermediate_values(study)
    return figure.update_layout(
        xaxis_title="epoch", yaxis_title="validation accuracy", showlegend=True, height=520
    )


def _target(study: optuna.Study) -> dict[str, Any]:
    """Return the first objective; by ``target`` only of several, for Optuna minimises targets."""
    name = {"target_name": INSIDE_TRAIN}
    return name if len(study.directions) == 1 else {**name, "target": lambda trial: trial.values[0]}


def _formatted(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _without_optuna_warnings() -> Iterator[None]:
    """Suppress Optuna's warnings on rare choices and on targets that it expects to be minimised."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield


_PLOTS: Mapping[str, Callable[[optuna.Study], Figure]] = {
    "history": _history,
    "importances": _importances,
    "parallel_coordinates": _parallel_coordinates,
    "slice": _slice,
    "intermediate_values": _intermediate_values,
}
