"""Bag of words and PCA: by hand, against scikit-learn and SciPy, and what always holds."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import vq
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin
from threadpoolctl import threadpool_limits

from scenetrack.encoders import BagOfWords, DescriptorPca, ImageEncoder
from scenetrack.encoders import codebook as codebook_module
from scenetrack.errors import InputError
from scenetrack.system.arrays import read_arrays


def with_codebook(words):
    bow = BagOfWords(len(words))
    bow.codebook_ = np.asarray(words, dtype=np.float32)
    return bow


@pytest.fixture
def three_words():
    return with_codebook([[0, 0], [10, 0], [0, 10]])


def drawn(count, width, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def drawn_positions(count, seed=0):
    return np.random.default_rng(seed).random((count, 2), np.float32)


def test_histograms_by_hand(three_words):
    images = np.array(
        [
            [[1, 1], [0, 2], [9, 1], [1, 8]],  # words 0, 0, 1, 2
            [[8, 0], [9, 3], [7, 1], [2, 9]],  # words 1, 1, 1, 2
        ],
        dtype=np.float32,
    )
    histograms = three_words.transform(images)
    assert histograms.dtype == np.float32
    np.testing.assert_array_equal(histograms, [[0.5, 0.25, 0.25], [0, 0.75, 0.25]])


def test_images_with_different_counts_by_hand(three_words):
    images = [np.array([[9, 0]], np.float32), np.array([[0, 9], [0, 1]], np.float32)]
    np.testing.assert_array_equal(three_words.transform(images), [[0, 1, 0], [0.5, 0, 0.5]])


def test_the_first_of_equally_near_words_is_taken(three_words):
    assert three_words.assign(np.array([[5, 0], [5, 5], [0, 5]], np.float32)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("block_bytes", [1, 1000, 2**22])
def test_assign_agrees_with_scikit_learn_and_scipy(monkeypatch, block_bytes):
    monkeypatch.setattr(codebook_module, "_BLOCK_BYTES", block_bytes)
    descriptors, codebook = drawn(501, 7), drawn(33, 7, seed=1)
    words = with_codebook(codebook).assign(descriptors)
    assert words.dtype == np.int64
    np.testing.assert_array_equal(words, pairwise_distances_argmin(descriptors, codebook))
    np.testing.assert_array_equal(words, vq(descriptors, codebook)[0])


def test_batches_of_images_give_what_all_images_give():
    images = drawn(6 * 20, 5).reshape(6, 20, 5)
    bow = BagOfWords(16, iterations=3).fit(images.reshape(-1, 5))
    batches = [bow.transform(images[:1]), bow.transform(images[1:5]), bow.transform(images[5:])]
    np.testing.assert_array_equal(np.concatenate(batches), bow.transform(images))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 30))
def test_histograms_sum_to_one_and_ignore_the_order_of_patches(seed, images, patches):
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((images, patches, 3)).astype(np.float32)
    bow = with_codebook(rng.standard_normal((8, 3)))
    histograms = bow.transform(descriptors)
    assert (histograms >= 0).all()
    np.testing.assert_allclose(histograms.sum(axis=1), 1, rtol=1e-6)
    shuffled = descriptors[:, rng.permutation(patches)]
    np.testing.assert_array_equal(bow.transform(shuffled), histograms)


def test_kmeans_finds_separated_clusters():
    centres = np.array([[0, 0], [50, 0], [0, 50], [50, 50]], np.float32)
    rows = np.repeat(centres, 50, axis=0) + drawn(200, 2)
    # Enough words that each cluster gets one wherever the random start lies.
    codebook = BagOfWords(16, iterations=20).fit(rows).codebook_
    gaps = np.linalg.norm(centres[:, None] - codebook, axis=2).min(axis=1)
    assert gaps.max() < 2


def test_the_seed_decides_the_codebook_and_the_number_of_threads_does_not():
    rows = drawn(3000, 8)
    first = BagOfWords(40, random_state=3).fit(rows).codebook_
    assert first.dtype == np.float32
    assert first.shape == (40, 8)
    np.testing.assert_array_equal(first, BagOfWords(40, random_state=3).fit(rows).codebook_)
    with threadpool_limits(1):
        np.testing.assert_array_equal(first, BagOfWords(40, random_state=3).fit(rows).codebook_)
    assert not np.array_equal(first, BagOfWords(40, random_state=4).fit(rows).codebook_)


def test_equal_descriptors_are_no_failure():
    rows = np.ones((20, 3), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bow = BagOfWords(5).fit(rows)
    np.testing.assert_array_equal(bow.transform(rows[None]), [[1, 0, 0, 0, 0]])


def test_fewer_descriptors_than_words_says_both_numbers():
    with pytest.raises(InputError, match=r"100 words.*Received: 99"):
        BagOfWords(100).fit(drawn(99, 4))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.ones((2, 2)), np.ones((0, 2))], "image 1 has none"),
        ([], "no images"),
        (np.ones((1, 2, 3)), "must have 2 values"),
        (np.full((1, 2, 2), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_encoded(three_words, images, message):
    with pytest.raises(InputError, match=message):
        three_words.transform(images)


def test_descriptors_must_be_rows():
    with pytest.raises(InputError, match=r"\[N, D\]"):
        BagOfWords(2).fit(np.ones((3, 4, 5)))


def test_pca_by_hand():
    # All variance along (3, 4) / 5, around the mean (1, 2).
    along = np.array([-2, -1, 0, 1, 2], np.float32)[:, None]
    rows = np.array([[1, 2]], np.float32) + along * np.array([[0.6, 0.8]], np.float32)
    pca = DescriptorPca(1).fit(rows)
    np.testing.assert_allclose(np.abs(pca.transform(rows)), np.abs(along), atol=1e-6)
    np.testing.assert_allclose(pca.explained_variance_ratio_, [1], atol=1e-6)


def test_pca_agrees_with_the_full_decomposition_and_keeps_leading_axes():
    rows = drawn(500, 6) * np.array([9, 7, 5, 3, 2, 1], np.float32) + 4
    ours = DescriptorPca(3).fit(rows).transform(rows.reshape(5, 100, 6))
    assert ours.shape == (5, 100, 3)
    assert ours.dtype == np.float32
    theirs = PCA(3, svd_solver="full").fit_transform(rows.astype(np.float64))
    np.testing.assert_allclose(np.abs(ours.reshape(-1, 3)), np.abs(theirs), atol=2e-3)


def test_pca_of_bytes_is_that_of_their_values():
    """To the rounding of its components: 10 bits, for 24 bytes of which none is above 99."""
    rows = np.random.default_rng(0).integers(0, 100, (400, 24)).astype(np.uint8)
    of_bytes, of_floats = DescriptorPca(6).fit(rows), DescriptorPca(6).fit(rows.astype(np.float32))
    assert of_bytes.whole_
    assert not of_floats.whole_
    found, expected = of_bytes.transform(rows), of_floats.transform(rows.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.5)
    exact = rows @ of_bytes.components_.T.astype(float) - (
        of_bytes.mean_.astype(float) @ of_bytes.components_.T.astype(float)
    )
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-4)


def test_pca_of_bytes_does_not_depend_on_the_order_of_values():
    rows = np.random.default_rng(0).integers(0, 256, (400, 64)).astype(np.uint8)
    pca = DescriptorPca(5).fit(rows)
    pca.mean_ = np.zeros(64, np.float32)
    order = np.random.default_rng(1).permutation(64)
    mixed = DescriptorPca.from_arrays(pca.to_arrays() | {"components": pca.components_[:, order]})
    np.testing.assert_array_equal(mixed.transform(rows[:, order]), pca.transform(rows))


def test_pca_to_more_dimensions_than_there_are_says_what_came():
    with pytest.raises(InputError, match=r"PCA to 8 .* 50 descriptors of 6 values"):
        DescriptorPca(8).fit(drawn(50, 6))


def test_pca_of_another_width_is_refused():
    with pytest.raises(InputError, match="must have 6 values"):
        DescriptorPca(2).fit(drawn(50, 6)).transform(drawn(5, 4))


@pytest.mark.parametrize("pca", [0, 3])
def test_a_saved_encoder_gives_the_same_features(tmp_path, pca):
    descriptors = drawn(200, 6)
    reduction = DescriptorPca(pca).fit(descriptors) if pca else None
    projected = reduction.transform(descriptors) if reduction else descriptors
    bow = BagOfWords(8, iterations=3).fit(projected)
    encoder = ImageEncoder(bow, ("1x1",), drawn_positions(10), reduction)
    np.savez(tmp_path / "encoder.npz", allow_pickle=False, **encoder.to_arrays())
    loaded = ImageEncoder.from_arrays(read_arrays(tmp_path / "encoder.npz"))
    images = drawn(40, 6, seed=1).reshape(4, 10, 6)
    np.testing.assert_array_equal(loaded.encode(images), encoder.encode(images))
    assert loaded.levels == ("1x1",)
    np.testing.assert_array_equal(loaded.positions, encoder.positions)


def saved(**changes):
    arrays = ImageEncoder(with_codebook([[1, 0]]), ("1x1",), drawn_positions(4), None).to_arrays()
    return {name: value for name, value in (arrays | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "a saved encoder needs encoder: text. Received: none"),
        ({"positions": np.zeros(3)}, "a saved encoder needs"),
        ({"encoder": np.array("bag of tricks")}, "must be one of: bag of words.*bag of tricks"),
        ({"encoder.codebook": None}, r"needs codebook: numbers \[K, D\]. Received: none"),
        ({"encoder.codebook": np.zeros(3)}, "a saved bag of words needs codebook"),
        (
            {"encoder.step": np.array(0.3)},
            "words of at most 64 double steps. Received: other words for the step",
        ),
        (
            {"encoder.step": np.array(-1.0)},
            "words of at most 64 double steps. Received: other words for the step",
        ),
        ({"encoder.sharpness": np.array(-1.0)}, "a sharpness of at least 0"),
        ({"encoder.idf": np.zeros(1)}, "idf above 0"),
        ({"pca.mean": np.zeros(4)}, r"a saved PCA needs components: numbers \[d, 4\]. Received: n"),
        ({"position_scale": np.array(-1.0)}, "a position_scale of at least 0. Received: -1;"),
        ({"levels": np.array(["2by2"])}, "a level of a pyramid must be ROWSxCOLUMNS"),
        ({"positions": np.full((4, 2), 2.0)}, r"positions must be an array \[n, 2\] of"),
    ],
)
def test_an_incomplete_encoder_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ImageEncoder.from_arrays(saved(**changes))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_the_grid_is_as_fine_as_float32(seed, scale):
    """Rounding to it moves a projection about as much as float32 itself does."""
    rng = np.random.default_rng(seed)
    descriptors = (scale * rng.standard_normal((300, 20))).astype(np.float32)
    pca = DescriptorPca(4).fit(descriptors)
    exact = (descriptors.astype(np.float64) - pca.mean_) @ pca.components_.T.astype(np.float64)
    longest = np.linalg.norm(descriptors, axis=1).max()
    np.testing.assert_allclose(
        pca.transform(descriptors), exact, rtol=0, atol=2 * longest * np.finfo(np.float32).eps
    )


def test_words_do_not_depend_on_the_order_of_values():
    """Sums are exact: the same values in another order give the same words, ties and all."""
    rng = np.random.default_rng(0)
    codebook = rng.standard_normal((50, 40)).astype(np.float32)
    # Half-way between two words, but for the rounding to float32.
    rows = (codebook[rng.integers(0, 50, 2000)] + codebook[rng.integers(0, 50, 2000)]) / 2
    order = rng.permutation(40)
    mixed = with_codebook(codebook[:, order]).assign(rows[:, order])
    np.testing.assert_array_equal(with_codebook(codebook).assign(rows), mixed)
