"""Saved parts that something happened to: refused in one line, or still of use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_pipelines import svm

from scenetrack.classifiers import FittedClassifier
from scenetrack.config import KERNELS
from scenetrack.encoders import BagOfWords, FisherVector, ImageEncoder, LocalEncoder, Vlad
from scenetrack.errors import InputError
from scenetrack.system.arrays import checked_arrays

Arrays = dict[str, NDArray[Any]]

IMAGES, PLACES, WIDTH = 3, 12, 6
_RNG = np.random.default_rng(0)
LOCAL = _RNG.gamma(1.0, 10.0, (IMAGES, PLACES, WIDTH)).astype(np.float32)
POSITIONS = (_RNG.integers(0, 8, (PLACES, 2)) / 8).astype(np.float32)


def learnt(encoder: LocalEncoder, pca: int, position_weight: float) -> ImageEncoder:
    sample = np.concatenate([LOCAL.reshape(-1, WIDTH)] * 2)
    return ImageEncoder.learn(
        sample,
        np.tile(POSITIONS, (len(sample) // PLACES, 1)),
        encoder,
        levels=("1x1", "2x1"),
        positions=POSITIONS,
        pca=pca,
        square_root=bool(pca),
        position_weight=position_weight,
    ).learn_idf([LOCAL])


ENCODERS = {
    "words": learnt(BagOfWords(5, tf_idf=True), 4, 1.0),
    "soft words": learnt(BagOfWords(5, assignment="soft"), 0, 0.0),
    "vlad": learnt(Vlad(4), 3, 0.0),
    "fisher": learnt(FisherVector(3), 4, 1.0),
}

HISTOGRAMS = _RNG.dirichlet(np.ones(7), 24).astype(np.float32)
LABELS = np.arange(24) % 3
CLASSIFIERS = {
    f"{kernel} {preparation}": svm(HISTOGRAMS, LABELS, kernel, preparation=preparation)
    for kernel in KERNELS
    for preparation in ("square_root", "standardise")
}

# What may happen to one array; those that cannot happen to it leave it as it is.
CHANGES: Mapping[str, Callable[[NDArray[Any]], NDArray[Any] | None]] = {
    "missing": lambda array: None,
    "turned": np.transpose,
    "one axis more": lambda array: array[None],
    "flat": np.ravel,
    "empty": lambda array: array.ravel()[:0],
    "shorter": lambda array: array[:-1] if array.ndim else array,
    "longer": lambda array: np.concatenate([array, array]) if array.ndim else array,
    "narrower": lambda array: array[..., :-1] if array.ndim else array,
    "not a number": lambda array: _with(array, np.nan),
    "endless": lambda array: _with(array, -np.inf),
    "negative": lambda array: -array if array.dtype.kind in "fi" else array,
    "zeros": np.zeros_like,
    "huge": lambda array: _with(array, 1e30),
    "text": lambda array: array.astype("U8"),
    "whole": lambda array: array.astype(np.int64) if array.dtype.kind in "fb" else array,
    "flags": lambda array: array.astype(np.bool_) if array.dtype.kind != "U" else array,
    "complex": lambda array: array.astype(complex) if array.dtype.kind != "U" else array,
    "halves": lambda array: array.astype(np.float16) if array.dtype.kind == "f" else array,
    "bytes": lambda array: array.astype("S8"),
    "the other order": lambda array: array.astype(array.dtype.newbyteorder()),
}


def _with(array: NDArray[Any], value: float) -> NDArray[Any]:
    changed = np.array(array)
    if changed.dtype.kind == "f":
        changed.reshape(-1)[-1] = value
    return changed


def changed(arrays: Arrays, name: str, change: str) -> Arrays:
    array = CHANGES[change](arrays[name])
    rest = {key: value for key, value in arrays.items() if key != name}
    return rest if array is None else {**rest, name: array}


def encoded(arrays: Arrays) -> NDArray[Any]:
    return ImageEncoder.from_arrays(arrays).encode(LOCAL)


def scored(arrays: Arrays) -> NDArray[Any]:
    return FittedClassifier.from_arrays(arrays).predict_scores(HISTOGRAMS)


def check(use: Callable[[Arrays], NDArray[Any]], arrays: Arrays) -> None:
    """What was saved is refused in one line, or gives finite values."""
    try:
        values = use(arrays)
    except InputError as error:
        refusal = str(error)
    else:
        refusal = "" if np.isfinite(values).all() else "\n"
    assert "\n" not in refusal


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_with_one_changed_array_is_refused_or_works(kind: str, change: str) -> None:
    arrays = ENCODERS[kind].to_arrays()
    for name in arrays:
        check(encoded, changed(arrays, name, change))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_with_one_changed_array_is_refused_or_works(kind: str, change: str) -> None:
    arrays = CLASSIFIERS[kind].to_arrays()
    for name in arrays:
        check(scored, changed(arrays, name, change))


@settings(deadline=None)
@given(st.data())
def test_a_classifier_with_several_changed_arrays_is_refused_or_works(data: st.DataObject) -> None:
    arrays = CLASSIFIERS[data.draw(st.sampled_from(sorted(CLASSIFIERS)))].to_arrays()
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), max_size=4, unique=True)):
        arrays = changed(arrays, name, data.draw(st.sampled_from(sorted(CHANGES))))
    check(scored, arrays)


@settings(deadline=None)
@given(st.data())
def test_an_encoder_with_several_changed_arrays_is_refused_or_works(data: st.DataObject) -> None:
    arrays = ENCODERS[data.draw(st.sampled_from(sorted(ENCODERS)))].to_arrays()
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), max_size=4, unique=True)):
        arrays = changed(arrays, name, data.draw(st.sampled_from(sorted(CHANGES))))
    check(encoded, arrays)


NEEDED = {"words": "numbers K D", "counts": "integers K", "name": "text", "soft": "flag"}
GOOD = {
    "words": np.zeros((2, 3)),
    "counts": np.array([1, 2]),
    "name": np.array("x"),
    "soft": np.array(True),
    "more": np.zeros(0),
}


class TestCheckedArrays:
    def test_gives_what_is_needed_alone(self) -> None:
        found = checked_arrays(GOOD, NEEDED, "thing")
        assert list(found) == list(NEEDED)
        np.testing.assert_array_equal(found["counts"], [1, 2])

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("words", None, r"a saved thing needs words: numbers \[K, D\]\. Received: none; train"),
            ("words", np.zeros(2), r"words: numbers \[K, D\]\. Received: float64 \[2\];"),
            ("words", np.full((2, 3), np.nan), r"float64 \[2, 3\] with values that are not finite"),
            ("words", np.full((2, 3), 1e19), r"Received: float64 \[2, 3\];"),
            ("words", np.zeros((0, 3)), r"Received: float64 \[0, 3\];"),
            ("counts", np.array([1, 2, 3]), r"counts: integers \[2\]\. Received: int64 \[3\];"),
            ("counts", np.array([1.0, 2.0]), r"counts: integers \[2\]\. Received: float64 \[2\];"),
            ("name", np.array(b"x"), r"name: text\. Received: \|S1 \[\];"),
            ("soft", np.array(1), r"soft: flag\. Received: int64 \[\];"),
        ],
    )
    def test_says_what_was_needed_and_what_came(
        self, name: str, value: NDArray[Any] | None, said: str
    ) -> None:
        arrays = {key: one for key, one in GOOD.items() if key != name}
        if value is not None:
            arrays[name] = value
        with pytest.raises(InputError, match=said):
            checked_arrays(arrays, NEEDED, "thing")

    def test_a_length_may_be_fixed(self) -> None:
        pairs = {"places": np.zeros((5, 2))}
        assert checked_arrays(pairs, {"places": "numbers n 2"}, "thing")
        with pytest.raises(InputError, match=r"numbers \[n, 3\]"):
            checked_arrays(pairs, {"places": "numbers n 3"}, "thing")
