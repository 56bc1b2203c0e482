"""What was chosen by some images is judged by others."""

from __future__ import annotations

import numpy as np
import pytest

from scenetrack.classifiers import fit_by_cross_validation
from scenetrack.classifiers.selection import Selection


def test_each_part_is_judged_by_the_choice_of_the_others() -> None:
    # Candidate 0 is right in part 0 only, 1 in parts 1 and 2, 2 nowhere.
    right = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0] * 6], bool)
    selection = Selection(right, np.arange(6), np.array([0, 0, 1, 1, 2, 2]))
    assert selection.best(np.ones(6, bool)) == 1
    # Parts 1 and 2 choose candidate 1, which is wrong in part 0. Without part 1 candidates 0 and
    # 1 are equally good, and the first of them is wrong in part 1; the same without part 2.
    assert selection.judged().tolist() == [False] * 6


def test_one_candidate_is_judged_by_all_images() -> None:
    right = np.array([[True, False, True, True]])
    selection = Selection.of_held_out(right, np.arange(4), np.zeros(4, np.int64))
    assert selection.judged().tolist() == [True, False, True, True]


def test_parts_have_equally_many_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], 10)
    selection = Selection.of_held_out(np.ones((1, 30), bool), np.arange(30), labels)
    assert np.bincount(3 * selection.parts + labels).tolist() == [2] * 15


def test_candidates_are_joined_in_order() -> None:
    first, second = (
        Selection(np.array([[value]] * 2), np.array([7]), np.array([0])) for value in (True, False)
    )
    assert Selection.joined([first, second]).right[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_are_judged_too(count: int) -> None:
    right = np.array([[False] * count, [True] * count])
    labels = np.zeros(count, np.int64)
    judged = Selection.of_held_out(right, np.arange(count), labels).judged()
    # A single image has no others: the first candidate is taken.
    assert judged.tolist() == [count > 1] * count


def test_the_best_of_many_guesses_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 8
    naive, honest = [], []
    for _ in range(200):
        right = rng.random((35, 60)) < 0.125
        selection = Selection.of_held_out(right, np.arange(60), labels)
        naive.append(right.mean(axis=1).max())
        honest.append(selection.judged().mean())
    assert np.mean(naive) > 0.2
    assert np.mean(honest) == pytest.approx(0.125, abs=0.01)


def test_cross_validation_tells_what_every_setting_said_of_every_image() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] + rng.standard_normal((60, 3))).astype(np.float32)
    found = fit_by_cross_validation(
        features, labels, "rbf", preparation="standardise", folds=5, seed=0
    )
    selection = found.selection
    assert selection is not None
    assert sorted(selection.images) == list(range(60))
    chosen = selection.right[selection.best(np.ones(60, bool))]
    accuracies = [chosen[selection.parts == part].mean() for part in range(5)]
    assert np.mean(accuracies) == pytest.approx(found.cv_accuracy)
    table = found.cv_table[np.lexsort((found.cv_table[:, 1], found.cv_table[:, 0]))]
    best = table[selection.best(np.ones(60, bool))]
    assert (best[0], best[1]) == (found.C, found.gamma)
