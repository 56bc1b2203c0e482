"""Settings of earlier runs, read with the care that values of others need."""

from __future__ import annotations

from collections.abc import Mapping

from scenetrack.config import AGGREGATIONS
from scenetrack.errors import ModelError
from scenetrack.system.foreign import whole_number

LARGEST_SEED = 2**31 - 1
# Side in pixels; a run that asks for more would take the machine's memory.
LARGEST_SIDE = 4096


def number_of_run(params: Mapping[str, str], name: str, default: int, high: int) -> int:
    """Return a setting of a run that is a whole number from 0 to ``high``.

    Args:
        params: settings of the run; none where they are not known.
        name: of the setting.
        default: where the run does not have it.
        high: the largest that can be.

    Raises:
        ModelError: the setting is no such number.
    """
    text = params.get(name, str(default))
    try:
        return whole_number(text, 0, high)
    except ValueError as error:
        raise ModelError(
            f"the run's setting {name} cannot be used: {error}; name another run"
        ) from error


def aggregation_of_run(params: Mapping[str, str]) -> str:
    """Return how a run aggregates the logits of patches: by their mean where it does not say.

    Raises:
        ModelError: it says something else than one of ``AGGREGATIONS``.
    """
    found = params.get("aggregation", AGGREGATIONS[0])
    if found not in AGGREGATIONS:
        raise ModelError(
            f"the run's setting aggregation must be one of: {', '.join(AGGREGATIONS)}. Received: "
            f"{found!r}; name another run"
        )
    return found
