"""Bags of words beyond plain shares: soft assignment, tf-idf, normalisation, words in bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from scenetrack.encoders import BagOfWords
from scenetrack.encoders.codebook import Codebook
from scenetrack.encoders.soft_assignment import SoftAssignment, learn_sharpness
from scenetrack.errors import InputError

WHOLE = np.ones((1, 4), np.bool_)
# Two descriptors at word 0, one at word 1, one at word 2.
ROWS = np.array([[1, 1], [0, 2], [9, 1], [1, 8]], np.float32)


def of_words(codebook, **settings):
    bow = BagOfWords(len(codebook), **settings)
    bow.codebook_ = np.asarray(codebook, np.float32)
    return bow


def three_words(**settings):
    return of_words([[0, 0], [10, 0], [0, 10]], **settings)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_l2_and_hellinger_by_hand():
    np.testing.assert_allclose(
        three_words(normalisation="l2").pool(ROWS, WHOLE), [np.array([2, 1, 1]) / np.sqrt(6)]
    )
    np.testing.assert_allclose(
        three_words(normalisation="hellinger").pool(ROWS, WHOLE), [np.sqrt([0.5, 0.25, 0.25])]
    )


@pytest.mark.parametrize(
    ("normalisation", "preparation"),
    [("l1", "square_root"), ("l2", "none"), ("hellinger", "none")],
)
def test_only_shares_are_square_rooted_later(normalisation, preparation):
    assert three_words(normalisation=normalisation).preparation == preparation


def test_regions_by_hand_and_an_empty_one_stays_zero():
    regions = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], np.bool_)
    expected = [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(three_words().pool(ROWS, regions), expected)


def test_regions_must_fit_the_descriptors():
    with pytest.raises(InputError, match=r"regions must be an array \[R, 4\].*\(1, 3\)"):
        three_words().pool(ROWS, np.ones((1, 3), np.bool_))


def test_tf_idf_by_hand():
    """Word 0 is in all 3 images, word 1 in one, word 2 in none."""
    bow = three_words(tf_idf=True).fit_idf([[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0]])
    idf = [np.log(4 / 4) + 1, np.log(4 / 2) + 1, np.log(4 / 1) + 1]
    np.testing.assert_allclose(bow.idf_, idf)
    weighed = np.array([2, 1, 1]) * idf
    np.testing.assert_allclose(bow.pool(ROWS, WHOLE), [weighed / weighed.sum()], rtol=1e-6)


def test_tf_idf_needs_its_weights_first():
    with pytest.raises(InputError, match="call fit_idf"):
        three_words(tf_idf=True).pool(ROWS, WHOLE)


def test_soft_shares_by_hand():
    """Squared distances 1 and 81 along a line; 1, 4 and 9 for the second."""
    soft = SoftAssignment(Codebook(np.array([[0], [10]], np.float32)), 0.05)
    near, shares = soft.assign(np.array([[1], [6]], np.float32))
    assert near.tolist() == [[0, 1], [1, 0]]
    ratio = np.exp([-0.05 * 80, -0.05 * 20])
    np.testing.assert_allclose(shares[:, 1], ratio / (1 + ratio), rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_soft_shares_against_all_distances():
    codebook, rows = drawn(30, 6), drawn(200, 6, seed=1)
    near, shares = SoftAssignment(Codebook(codebook), 0.7).assign(rows)
    distances = ((rows[:, None].astype(float) - codebook) ** 2).sum(axis=2)
    order = np.argsort(distances, axis=1)[:, :5]
    np.testing.assert_array_equal(near, order)
    weights = np.exp(-0.7 * np.take_along_axis(distances, order, axis=1))
    np.testing.assert_allclose(shares, weights / weights.sum(axis=1, keepdims=True), rtol=1e-4)


def test_soft_counts_are_the_sums_of_the_shares():
    bow = BagOfWords(12, assignment="soft").fit(drawn(300, 4))
    rows = drawn(50, 4, seed=1)
    near, shares = SoftAssignment(Codebook(bow.codebook_), bow.sharpness_).assign(rows)
    expected = [shares[near == word].sum() for word in range(12)]
    np.testing.assert_allclose(bow.counts(rows, np.ones((1, 50), np.bool_))[0], expected)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_sharpness_does_not_depend_on_the_unit(unit):
    bow = BagOfWords(12, assignment="soft", iterations=3).fit(unit * drawn(300, 4))
    reference = BagOfWords(12, assignment="soft", iterations=3).fit(drawn(300, 4))
    assert bow.sharpness_ * unit**2 == pytest.approx(reference.sharpness_, rel=1e-3)


def test_sharpness_by_hand():
    """Words at 0 and 3: of 1 the second is 4 - 1 farther, of 0 it is 9; their mean is 6."""
    codebook = Codebook(np.array([[0], [3]], np.float32))
    rows = np.array([[1], [0]], np.float32)
    assert learn_sharpness(codebook, rows) == pytest.approx(1 / 6)


def test_a_single_word_takes_everything():
    bow = BagOfWords(1, assignment="soft").fit(drawn(9, 2))
    np.testing.assert_array_equal(bow.transform(drawn(2, 5, 2)), [[1], [1]])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["hard", "soft"]),
    st.booleans(),
    st.sampled_from(["l1", "l2", "hellinger"]),
)
def test_what_always_holds(seed, assignment, tf_idf, normalisation):
    """Unit sum or length, no negative values, no matter in which order descriptors come."""
    rng = np.random.default_rng(seed)
    bow = of_words(
        rng.standard_normal((8, 3)),
        assignment=assignment,
        tf_idf=tf_idf,
        normalisation=normalisation,
    )
    bow.sharpness_ = 1.0
    bow.idf_ = rng.random(8) + 0.5
    image = rng.standard_normal((40, 3)).astype(np.float32)
    (found,) = bow.transform(image[None])
    assert found.dtype == np.float32
    assert found.min() >= 0
    length = found.sum() if normalisation == "l1" else np.linalg.norm(found)
    assert length == pytest.approx(1, rel=1e-5)
    shuffled = bow.transform(image[None, rng.permutation(40)])
    np.testing.assert_allclose(shuffled[0], found, rtol=1e-5, atol=1e-7)
    twice = bow.transform(np.concatenate([image, image])[None])
    np.testing.assert_allclose(twice[0], found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assignment": "fuzzy"}, "assignment must be one of: hard, soft. Received: 'fuzzy'"),
        ({"normalisation": "l3"}, "normalisation must be one of: l1, l2, hellinger"),
    ],
)
def test_unknown_choices_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        BagOfWords(2, **settings).fit(drawn(9, 2))


@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("tf_idf", [False, True])
def test_saved_and_loaded(assignment, tf_idf):
    bow = BagOfWords(9, assignment=assignment, tf_idf=tf_idf, normalisation="l2")
    bow.fit(drawn(100, 4))
    if tf_idf:
        bow.set_occurrences(np.arange(9), 10)
    images = drawn(3, 20, 4, seed=1)
    loaded = BagOfWords.from_arrays(bow.to_arrays())
    np.testing.assert_array_equal(loaded.transform(images), bow.transform(images))
    assert loaded.preparation == "none"


class TestBytes:
    """Words in steps of 8-bit integers: another way to the same words."""

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(0, 2**32 - 1),
        st.sampled_from([2.0**-9, 1.0, 32.0]),
        st.integers(1, 70),
        st.sampled_from([3, 127]),
    )
    def test_they_are_those_of_the_exact_search(self, seed, step, width, largest):
        """Few steps make many ties, and many make long words."""
        rng = np.random.default_rng(seed)
        top = min(64, largest)
        codebook = (2 * step * rng.integers(-top, top + 1, (40, width))).astype(np.float32)
        codebook[20:30] = codebook[:10]
        rows = (step * rng.integers(-largest, largest + 1, (300, width))).astype(np.float32)
        squares = ((rows[:, None].astype(float) - codebook) ** 2).sum(axis=2)
        found = Codebook(codebook, step).nearest(rows)
        np.testing.assert_array_equal(found, squares.argmin(axis=1))
        np.testing.assert_array_equal(found, Codebook(codebook).nearest(rows))

    def test_they_are_those_of_scikit_learn(self):
        rows = np.rint(20 * drawn(3000, 16))
        bow = BagOfWords(64, iterations=5).fit(rows).round_words(1.0)
        kmeans = KMeans(64, init=bow.codebook_, n_init=1, max_iter=1).fit(rows)
        kmeans.cluster_centers_ = bow.codebook_
        distances = ((rows[:, None] - bow.codebook_) ** 2).sum(axis=2)
        ours, theirs = bow.assign(rows), kmeans.predict(rows)
        every = np.arange(len(rows))
        # Equally near words are a matter of taste: scikit-learn has no rule for them.
        np.testing.assert_array_equal(distances[every, ours], distances[every, theirs])

    @pytest.mark.parametrize(
        ("value", "word"),
        [(0.5, 0), (1.5, 1), (-0.5, 0), (127.4, 2), (300, 2), (-128, 0), (-300, 0)],
    )
    def test_descriptors_are_rounded_to_even_and_cut_to_bytes(self, value, word):
        """Words at 0, 2 and 128: 1 lies between the first two, 2 does not."""
        codebook = Codebook(np.array([[0], [2], [128]], np.float32), 1.0)
        assert codebook.nearest(np.array([[value]], np.float32)).tolist() == [word]

    def test_words_are_rounded_to_double_steps_and_cut(self):
        bow = of_words([[0.9, 1.1], [400.0, -400.0]]).round_words(1.0)
        np.testing.assert_array_equal(bow.codebook_, [[0, 2], [128, -128]])
        assert bow.step_ == 1

    def test_the_step_is_saved(self):
        bow = of_words([[0, 2], [4, 4]]).round_words(1.0)
        assert BagOfWords.from_arrays(bow.to_arrays()).step_ == 1
