"""VLAD: by hand, against loops over descriptors, and what always holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from scenetrack.encoders.bag_of_words import BagOfWords
from scenetrack.encoders.vlad import Vlad
from scenetrack.errors import InputError
from scenetrack.system.arrays import read_arrays


def with_codebook(words, **settings):
    words = np.asarray(words, np.float32)
    encoder = Vlad(len(words), **settings)
    encoder.words_ = BagOfWords.from_arrays({"codebook": words})
    return encoder


def drawn(count, width, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def plain(words):
    """Residual sums and unit length, as in the paper of 2010."""
    return with_codebook(words, intra_normalisation=False, power=1.0)


def reference(rows, encoder):
    """Descriptor by descriptor, in float64."""
    codebook = encoder.words_.codebook_.astype(np.float64)
    sums = np.zeros_like(codebook)
    for row in rows.astype(np.float64):
        nearest = np.argmin(((row - codebook) ** 2).sum(axis=1))
        sums[nearest] += row - codebook[nearest]
    if encoder.intra_normalisation:
        sums = np.array([s / np.linalg.norm(s) if s.any() else s for s in sums])
    powered = np.sign(sums.ravel()) * np.abs(sums.ravel()) ** encoder.power
    return powered / np.linalg.norm(powered)


# Nearest words 0, 0 and 1: sums (1, 3) + (2, 1) = (3, 4) and (-5, 0), none at word 2.
ROWS = np.array([[[1, 3], [2, 1], [15, 0]]], np.float32)
WORDS = [[0, 0], [20, 0], [0, 50]]


def test_residuals_by_hand():
    encoded = plain(WORDS).transform(ROWS)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [np.array([3, 4, -5, 0, 0, 0]) / np.sqrt(50)], rtol=1e-6)


def test_intra_normalisation_by_hand():
    encoder = with_codebook(WORDS, intra_normalisation=True, power=1.0)
    expected = np.array([0.6, 0.8, -1, 0, 0, 0]) / np.sqrt(2)
    np.testing.assert_allclose(encoder.transform(ROWS), [expected], rtol=1e-6)


def test_power_by_hand():
    encoder = with_codebook(WORDS, intra_normalisation=False, power=0.5)
    expected = np.sqrt([3, 4, 5, 0, 0, 0]) * [1, 1, -1, 1, 1, 1] / np.sqrt(12)
    np.testing.assert_allclose(encoder.transform(ROWS), [expected], rtol=1e-6)


@pytest.mark.parametrize("intra_normalisation", [False, True])
@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_agrees_with_loops(intra_normalisation, power):
    encoder = Vlad(12, 0, intra_normalisation, power).fit(drawn(500, 5))
    rows = drawn(60, 5, seed=1)
    np.testing.assert_allclose(
        encoder.transform(rows[None])[0], reference(rows, encoder), rtol=0, atol=1e-5
    )


def test_the_words_are_those_of_the_bag():
    rows = drawn(400, 5)
    np.testing.assert_array_equal(
        Vlad(20, random_state=3).fit(rows).words_.codebook_,
        BagOfWords(20, random_state=3).fit(rows).codebook_,
    )


def test_descriptors_that_are_words_leave_zeros():
    """A rounding error would be given unit length by the normalisations."""
    codebook = drawn(9, 30) / 3
    encoder = with_codebook(codebook)
    rows = codebook[np.random.default_rng(0).integers(0, 9, 200)]
    np.testing.assert_array_equal(encoder.transform(rows[None]), 0)
    middle = encoder.transform(np.array([2 * codebook[:1] - codebook[1:2], codebook[3:4]]))
    np.testing.assert_array_equal(middle[1], 0)
    np.testing.assert_allclose(np.linalg.norm(middle[0]), 1, rtol=1e-6)


def test_regions_are_encoded_as_if_they_were_images():
    encoder = Vlad(6).fit(drawn(300, 4))
    rows = drawn(40, 4, seed=1)
    regions = np.zeros((4, 40), bool)
    regions[0] = True
    regions[1, ::2] = True
    regions[2, :25] = True
    encoded = encoder.pool(rows, regions)
    np.testing.assert_array_equal(encoded[:3], encoder.transform([rows, rows[::2], rows[:25]]))
    np.testing.assert_array_equal(encoded[3], 0)
    np.testing.assert_array_equal(encoder.pool(rows, regions[3:]), 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.booleans())
def test_order_changes_no_bit_and_copies_change_nothing(seed, count, intra_normalisation):
    rng = np.random.default_rng(seed)
    encoder = with_codebook(
        rng.standard_normal((5, 3)), intra_normalisation=intra_normalisation, power=0.5
    )
    rows = rng.standard_normal((count, 3)).astype(np.float32)
    encoded = encoder.transform([rows])
    np.testing.assert_allclose(np.linalg.norm(encoded), 1, rtol=1e-6)
    np.testing.assert_array_equal(encoder.transform([rng.permutation(rows)]), encoded)
    np.testing.assert_allclose(
        encoder.transform([np.repeat(rows, 4, axis=0)]), encoded, rtol=0, atol=1e-6
    )


def test_the_seed_decides_and_the_number_of_threads_does_not():
    rows = drawn(2000, 8)
    images = rows[:600].reshape(3, 200, 8)
    first = Vlad(16, random_state=2).fit(rows)
    with threadpool_limits(1):
        second = clone(first).fit(rows)
        np.testing.assert_array_equal(first.transform(images), second.transform(images))


def test_width_and_preparation():
    encoder = with_codebook(drawn(7, 3))
    assert encoder.width == 21 == encoder.transform(drawn(5, 3)[None]).shape[1]
    assert encoder.preparation == "none"


@pytest.mark.parametrize("settings", [(True, 0.5), (False, 1.0)])
def test_a_saved_one_gives_the_same(tmp_path, settings):
    encoder = Vlad(6, 0, *settings).fit(drawn(300, 4))
    np.savez(tmp_path / "vlad.npz", allow_pickle=False, **encoder.to_arrays())
    loaded = Vlad.from_arrays(read_arrays(tmp_path / "vlad.npz"))
    rows = drawn(40, 4, seed=1)[None]
    np.testing.assert_array_equal(loaded.transform(rows), encoder.transform(rows))
    assert (loaded.codebook_size, loaded.intra_normalisation, loaded.power) == (6, *settings)


@pytest.mark.parametrize("missing", ["codebook", "intra_normalisation", "power"])
def test_missing_arrays_are_refused(missing):
    arrays = with_codebook(drawn(7, 3)).to_arrays()
    del arrays[missing]
    with pytest.raises(InputError, match="a saved vlad needs"):
        Vlad.from_arrays(arrays)


@pytest.mark.parametrize("power", [0.0, -1.0, np.nan, np.inf])
def test_powers_that_cannot_be_are_refused(power):
    with pytest.raises(InputError, match="a power above 0"):
        Vlad(2, power=power).fit(drawn(10, 3))
    arrays = {**with_codebook(drawn(7, 3)).to_arrays(), "power": np.array(power)}
    with pytest.raises(InputError, match=r"a power above 0|needs power: numbers"):
        Vlad.from_arrays(arrays)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.ones((2, 2)), np.ones((0, 2))], "image 1 has none"),
        (np.ones((1, 2, 3)), "must have 2 values"),
        (np.full((1, 2, 2), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_encoded(images, message):
    with pytest.raises(InputError, match=message):
        plain(WORDS).transform(images)


def test_regions_of_another_length_are_refused():
    with pytest.raises(InputError, match="regions"):
        plain(WORDS).pool(ROWS[0], np.ones((1, 4), bool))
