"""Plots of a study (PNG): history, importances, slices, parallel coordinates, Pareto front."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from scenetrack.figures.style import BLUE, DPI, GREY, ORANGE, heading, plain, shortened, to_png
from scenetrack.records import Figure
from scenetrack.tuning.trial_state import finished

logger = logging.getLogger(__name__)

INSIDE_TRAIN = "accuracy inside train"
# With fewer complete trials the importance of a setting cannot be estimated.
FEWEST_FOR_IMPORTANCES = 5
_COLUMNS, _AXES_IN_A_ROW = 4, 8
_LONGEST_CHOICE, _CHOICES_TURNED = 14, 34
# Only the last curves of a long study are drawn, and the curve of the best trial.
_MOST_CURVES = 100


def study_figures(study: optuna.Study, objectives: Sequence[str]) -> list[Figure]:
    """Draw each plot that the study has enough trials for, as ``figures/study_NAME.png``.

    A log message names each plot that is left out.

    Args:
        study: study whose first objective is the accuracy inside train.
        objectives: names of the objectives.
    """
    drawn: list[Figure] = []
    for name, reason in unmet_requirements(study).items():
        if reason:
            logger.info("the plot %s of the study is left out: it needs %s", name, reason)
            continue
        if name == "pareto_front":
            drawn.append(_pareto_front(study, objectives))
        else:
            drawn.append(_PICTURES[name](study))
    return drawn


def unmet_requirements(study: optuna.Study) -> dict[str, str]:
    """Return, for the name of each plot, what the study still needs for it; "" if nothing."""
    complete = complete_trials(study)
    differ = len({trial.values[0] for trial in complete}) > 1
    varied = bool(varied_parameters(complete))
    few = "" if len(complete) > 1 else "two complete trials"
    shown = few or ("" if varied else "a setting with two values")
    different = shown or ("" if differ else "trials of different accuracy")
    enough = len(complete) >= FEWEST_FOR_IMPORTANCES
    curves = any(len(trial.intermediate_values) > 1 for trial in finished(study))
    found = {
        "history": few,
        "importances": different if enough else f"{FEWEST_FOR_IMPORTANCES} complete trials",
        "parallel_coordinates": different,
        "slice": shown,
        "intermediate_values": "" if curves else "validation curves of two epochs",
    }
    return found | ({"pareto_front": few} if len(study.directions) > 1 else {})


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials, in the order of their numbers."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def varied_parameters(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the settings that have two or more values, in the order of the search space."""
    drawn: dict[str, set[object]] = {}
    for trial in max(trials, key=lambda trial: len(trial.params), default=None), *trials:
        for name, value in trial.params.items() if trial else ():
            drawn.setdefault(name, set()).add(value)
    return [name for name, values in drawn.items() if len(values) > 1]


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each setting for the accuracy, largest first; the sum is 1."""
    with warnings.catch_warnings():
        # Rare choices have few trials, and the title says that this is an estimate.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        # Optuna warns of any target that it will be minimised; ours is the negative accuracy.
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        return optuna.importance.get_param_importances(study, target=lambda trial: -trial.values[0])


def _history(study: optuna.Study) -> Figure:
    canvas = Canvas(figsize=(9, 4.2), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    complete = complete_trials(study)
    numbers, values = [trial.number for trial in complete], _accuracies(complete)
    stopped = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    if stopped:
        # At the bottom: the curve of a patch network is not the accuracy of an SVM on it.
        at_bottom: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        places = [trial.number for trial in stopped], [0.0] * len(stopped)
        axes.plot(*places, "x", color=GREY, ms=6, label="stopped early", **at_bottom)
    axes.plot(numbers, values, "o", color=BLUE, ms=6, alpha=0.7, label="complete")
    best = np.maximum.accumulate(values)
    axes.step(numbers, best, where="post", color=ORANGE, lw=2, label="best so far")
    axes.set(xlabel="trial", ylabel=INSIDE_TRAIN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent(axes)
    heading(axes, f"Best so far: {best[-1]:.1%} after {len(complete)} complete trials")
    plain(axes)
    _legend_below(canvas, axes)
    return to_png(canvas, _path("history"))


def _importances(study: optuna.Study) -> Figure:
    found = importances(study)
    canvas = Canvas(figsize=(9, 1.3 + 0.3 * len(found)), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    places = range(len(found))
    bars = axes.barh(places, list(found.values()), color=BLUE, height=0.65)
    axes.bar_label(bars, [f"{value:.0%}" for value in found.values()], padding=4, fontsize=9)
    axes.set_yticks(places, list(found))
    axes.set(ylim=(len(found) - 0.4, -0.6), xlabel="share of the differences in accuracy")
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    heading(axes, "Importance of each setting for the accuracy (estimate)")
    plain(axes)
    axes.tick_params(axis="y", length=0)
    return to_png(canvas, _path("importances"))


def _slice(study: optuna.Study) -> Figure:
    trials = complete_trials(study)
    names = varied_parameters(trials)
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    size = (max(4.5, 2.9 * columns), 0.6 + 2.3 * rows)
    canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    best = max(trials, key=lambda trial: (trial.values[0], -trial.number))
    for axes, name in itertools.zip_longest(panels, names):
        if name is None:
            axes.set_visible(False)
            continue
        having = [trial for trial in trials if name in trial.params]
        axes.plot([_as_number(trial, name) for trial in having], _accuracies(having), "o", **_DOT)
        if name in best.params:
            axes.plot(_as_number(best, name), best.values[0], "o", color=ORANGE, ms=8, mec="white")
        _label_setting(axes, having, name)
        axes.set_title(name, fontsize=10, loc="left")
        axes.margins(0.1)
        axes.tick_params(labelsize=7.5)
        plain(axes)
    _percent(panels[0])
    canvas.supylabel(INSIDE_TRAIN, fontsize=10)
    title = f"Accuracy over the values of each setting; orange: the best trial, {best.number}"
    canvas.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return to_png(canvas, _path("slice"))


def _parallel_coordinates(study: optuna.Study) -> Figure:
    trials = sorted(complete_trials(study), key=lambda trial: (trial.values[0], -trial.number))
    names = varied_parameters(trials)
    rows = math.ceil(len(names) / _AXES_IN_A_ROW)
    each = math.ceil(len(names) / rows)
    size = (max(6.0, 1.6 + 1.45 * each), 0.6 + 3.5 * rows)
    canvas = Canvas(figsize=size, dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.12))
    for row, axes in enumerate(canvas.subplots(rows, 1, squeeze=False).ravel()):
        _draw_parallel(axes, trials, names[row * each : (row + 1) * each], each)
    title = "Settings of each trial; darker lines are more accurate; orange: the best trial"
    canvas.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return to_png(canvas, _path("parallel_coordinates"))


def _draw_parallel(
    axes: Axes, trials: Sequence[FrozenTrial], names: Sequence[str], width: int
) -> None:
    """Draw one row of axes, the accuracy first; ``trials`` are sorted by accuracy, best last."""
    accuracies = _accuracies(trials)
    low, high = min(accuracies), max(accuracies)
    scales = [_Scale.of(trials, name) for name in names]
    for trial in trials:
        height = (trial.values[0] - low) / (high - low)
        heights = [height, *(scale.height(trial) for scale in scales)]
        is_best = trial is trials[-1]
        colour = ORANGE if is_best else colormaps["Blues"](0.2 + 0.75 * height)
        axes.plot(heights, color=colour, lw=2.6 if is_best else 1.2, alpha=1 if is_best else 0.8)
    labels = [[(0.0, f"{low:.1%}"), (1.0, f"{high:.1%}")], *(scale.labels for scale in scales)]
    for place, marks in enumerate(labels):
        axes.axvline(place, ymin=0, ymax=1, color=GREY, lw=0.8, zorder=1)
        for height, text in marks:
            axes.annotate(
                shortened(text, _LONGEST_CHOICE),
                (place, height),
                (4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                zorder=5,
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8},
            )
    axes.set_xticks(range(len(names) + 1), ["accuracy", *names], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set(xlim=(-0.1, width + 0.75), ylim=(-0.2, 1.05), yticks=[])
    axes.spines[:].set_visible(False)


class _Scale:
    """Position of a setting's values on an axis from 0 to 1; -0.15 for a trial without it."""

    def __init__(self, low: float, high: float, name: str, labels: list[tuple[float, str]]):
        self._low, self._high, self._name = low, high, name
        self.labels = labels

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], name: str) -> _Scale:
        having = [trial for trial in trials if name in trial.params]
        drawn = having[0].distributions[name]
        if isinstance(drawn, CategoricalDistribution):
            last = len(drawn.choices) - 1
            labels = [(at / max(last, 1), str(choice)) for at, choice in enumerate(drawn.choices)]
            low, high = 0.0, float(last)
        else:
            ordered = sorted(having, key=lambda trial: trial.params[name])
            ends = ordered[0], ordered[-1]
            low, high = (_axis_value(trial, name) for trial in ends)
            labels = [(0.0, _text(ends[0].params[name])), (1.0, _text(ends[1].params[name]))]
        missing = [] if len(having) == len(trials) else [(_MISSING, "not used")]
        return cls(low, high, name, [*missing, *labels])

    def height(self, trial: FrozenTrial) -> float:
        if self._name not in trial.params:
            return _MISSING
        return (_axis_value(trial, self._name) - self._low) / ((self._high - self._low) or 1)


def _intermediate_values(study: optuna.Study) -> Figure:
    having = [trial for trial in finished(study) if len(trial.intermediate_values) > 1]
    complete = [trial for trial in having if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.values[0], -trial.number), default=None)
    canvas = Canvas(figsize=(9, 4.6), dpi=DPI, layout="constrained")
    axes = canvas.subplots()
    for trial in having[-_MOST_CURVES:]:
        stopped = trial.state != TrialState.COMPLETE
        label = "stopped early" if stopped else "complete"
        look: dict[str, Any] = (
            {"color": GREY, "alpha": 0.6} if stopped else {"color": BLUE, "alpha": 0.4}
        )
        points = sorted(trial.intermediate_values.items())
        axes.plot(*zip(*points, strict=True), lw=1.2, label=label, **look)
        if stopped:
            axes.plot(*points[-1], "x", color=GREY, ms=6)
    if best:
        points = sorted(best.intermediate_values.items())
        label = f"best: trial {best.number}"
        axes.plot(*zip(*points, strict=True), color=ORANGE, lw=2.6, label=label)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent(axes)
    heading(axes, "Validation accuracy of each trial after each epoch")
    plain(axes)
    _legend_below(canvas, axes)
    return to_png(canvas, _path("intermediate_values"))


def _pareto_front(study: optuna.Study, objectives: Sequence[str]) -> Figure:
    """Plot accuracy over each other objective, with the trials that no trial dominates."""
    others = objectives[1:]
    canvas = Canvas(figsize=(0.8 + 6.2 * len(others), 4.6), dpi=DPI, layout="constrained")
    panels = canvas.subplots(1, len(others), squeeze=False, sharey=True)[0]
    trials, front = complete_trials(study), study.best_trials
    for place, (axes, name) in enumerate(zip(panels, others, strict=True), start=1):
        costs = [trial.values[place] for trial in trials]
        axes.plot(costs, _accuracies(trials), "o", label="complete", **_DOT)
        ordered = sorted(front, key=lambda trial: trial.values[place])
        x, y = [trial.values[place] for trial in ordered], [trial.values[0] for trial in ordered]
        joined = "-" if len(objectives) == 2 else ""
        axes.plot(x, y, f"o{joined}", color=ORANGE, ms=7, drawstyle="steps-post", label="front")
        for trial in ordered:
            at = (trial.values[place], trial.values[0])
            text = str(trial.number)
            axes.annotate(text, at, (4, 5), textcoords="offset points", fontsize=8, color=GREY)
        if min(costs) > 0 and max(costs) > 20 * min(costs):
            axes.set_xscale("log")
        elif max(costs) >= 1000:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set(xlabel=OBJECTIVE_LABELS.get(name, name))
        plain(axes)
    panels[0].set_ylabel(INSIDE_TRAIN)
    _percent(panels[0])
    _legend_below(canvas, panels[0])
    heading(panels[0], "Pareto front, with the numbers of its trials")
    return to_png(canvas, _path("pareto_front"))


def _label_setting(axes: Axes, having: Sequence[FrozenTrial], name: str) -> None:
    """Set the ticks of the x axis: the choices of a categorical setting, or a numeric scale."""
    drawn = having[0].distributions[name]
    if isinstance(drawn, CategoricalDistribution):
        texts = [shortened(str(choice), _LONGEST_CHOICE) for choice in drawn.choices]
        turned = 15 if sum(map(len, texts)) > _CHOICES_TURNED else 0
        axes.set_xticks(range(len(texts)), texts, rotation=turned)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    elif getattr(drawn, "log", False):
        values = [trial.params[name] for trial in having]
        ticks = {float(f"{tick:.2g}") for tick in np.geomspace(min(values), max(values), 3)}
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(sorted(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value)))
    else:
        whole = isinstance(having[0].params[name], int)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))


def _legend_below(canvas: Canvas, axes: Axes) -> None:
    """Draw one legend below the panels, where it hides no point."""
    keys = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    look = {"frameon": False, "fontsize": 9, "ncols": len(keys)}
    canvas.legend(list(keys.values()), list(keys), loc="outside lower center", **look)


def _as_number(trial: FrozenTrial, name: str) -> float:
    """Return a setting's value as a number; for a categorical setting, the choice's index."""
    drawn = trial.distributions[name]
    if isinstance(drawn, CategoricalDistribution):
        return float(drawn.to_internal_repr(trial.params[name]))
    return float(trial.params[name])


def _axis_value(trial: FrozenTrial, name: str) -> float:
    value = _as_number(trial, name)
    return math.log(value) if getattr(trial.distributions[name], "log", False) else value


def _accuracies(trials: Sequence[FrozenTrial]) -> list[float]:
    return [trial.values[0] for trial in trials]


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _path(name: str) -> str:
    return f"figures/study_{name}.png"


OBJECTIVE_LABELS: Mapping[str, str] = {
    "accuracy": INSIDE_TRAIN,
    "latency": "latency of an image",
}
_MISSING = -0.15
_DOT: Mapping[str, Any] = {"color": BLUE, "ms": 5, "alpha": 0.6}
_PICTURES: Mapping[str, Callable[[optuna.Study], Figure]] = {
    "history": _history,
    "importances": _importances,
    "parallel_coordinates": _parallel_coordinates,
    "slice": _slice,
    "intermediate_values": _intermediate_values,
}
