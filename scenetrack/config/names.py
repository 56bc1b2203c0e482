"""Names that MLflow and Optuna refuse, refused before any work is done."""

from __future__ import annotations

from scenetrack.errors import ConfigError

LONGEST_EXPERIMENT = 500  # MLflow's own limit
LONGEST_REGISTERED = 256  # the width of the column in MLflow's database
LONGEST_STUDY = 512  # the width of the column in Optuna's database
_SHOWN = 60


def check_name(setting: str, name: str, longest: int, forbidden: str = "") -> None:
    """Raise ConfigError for a name that a store would refuse or could not show.

    Args:
        setting: that the name is given for, for the message.
        name: of an experiment, a registered model or a study.
        longest: number of characters that the store keeps.
        forbidden: characters that the store refuses.
    """
    problem = ""
    if not name.strip():
        problem = "must not be empty"
    elif len(name) > longest:
        problem = f"must have at most {longest} characters"
    elif not name.isprintable():
        problem = "must have no control characters, and no bytes that are not UTF-8"
    elif found := sorted(set(forbidden).intersection(name)):
        problem = f"must not contain {' or '.join(found)}"
    elif forbidden and name.strip(".") == "":
        problem = "must not be dots alone, which name folders"
    if problem:
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}… ({len(name)} characters)"
        raise ConfigError(f"{setting} {problem}. Received: {shown!a}")
