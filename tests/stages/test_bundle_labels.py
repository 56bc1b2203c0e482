"""Labels of a bundle's parts against those that the run logged when it was tested."""

from __future__ import annotations

import numpy as np
import pytest

from scenetrack.errors import ExportError
from scenetrack.stages.bundle import TIE, differing_labels

SCORES = np.array([[1.0, 0.0, -1.0], [0.5, 0.5 + TIE / 2, 0.0], [0.0, 0.1, 0.7]])


def test_equal_labels_and_ties() -> None:
    assert differing_labels(SCORES, np.array([0, 1, 2]), "run x") == 0
    assert differing_labels(SCORES, np.array([0, 0, 2]), "run x") == 1


@pytest.mark.parametrize(
    ("logged", "count"), [([0, 0, 1], 2), ([1, 1, 2], 1), ([2, 2, 0], 3)], ids=str
)
def test_others_are_counted_with_the_ties_among_them(logged: list[int], count: int) -> None:
    with pytest.raises(ExportError, match=rf"run x logged .* {count} of 3 test images: .* nothing"):
        differing_labels(SCORES, np.array(logged), "run x")
