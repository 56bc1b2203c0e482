"""From raw descriptors to features: roots, positions, rounding, and learning all of it."""

import numpy as np
import pytest

from scenetrack.encoders import BagOfWords, DescriptorPca, FisherVector, ImageEncoder, Vlad
from scenetrack.errors import InputError
from scenetrack.system import threads
from scenetrack.system.arrays import read_arrays

GRID = np.array([[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]], np.float32)
LEARN = {
    "levels": ("1x1",),
    "positions": GRID,
    "pca": 0,
    "square_root": False,
    "position_weight": 0.0,
}
ENCODERS = {
    "hard": lambda: BagOfWords(8, iterations=3),
    "soft": lambda: BagOfWords(8, iterations=3, assignment="soft", normalisation="hellinger"),
    "tf-idf": lambda: BagOfWords(8, iterations=3, tf_idf=True),
    "vlad": lambda: Vlad(4),
    "fisher": lambda: FisherVector(3),
}


def sample(count=600, width=10, seed=0):
    """Descriptors as bytes, and their positions."""
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_normal((count, width))) * np.linspace(60, 5, width)
    return values.astype(np.uint8), rng.random((count, 2), np.float32)


def images(count=3, width=10, seed=1):
    return sample(count * len(GRID), width, seed)[0].reshape(count, len(GRID), width)


def plain(**changes):
    bow = BagOfWords(2)
    bow.codebook_ = np.array([[0, 0], [1, 1]], np.float32)
    settings = {"encoder": bow, "levels": ("1x1",), "positions": GRID, **changes}
    return ImageEncoder(**settings)


def test_roots_by_hand():
    """Shares of 9, 16 and 0 in 25; where there is nothing, nothing comes."""
    rows = np.array([[9, 16, 0], [0, 0, 0]], np.uint8)
    found = plain(square_root=True).project(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.8, 0], [0, 0, 0]], rtol=1e-6)


def test_negative_values_have_no_roots():
    with pytest.raises(InputError, match=r"must not be negative. Received: a smallest value of -1"):
        plain(square_root=True).project(np.array([[1.0, -1.0]]))


def test_places_are_appended_by_hand():
    encoder = plain(position_scale=4.0)
    rows = np.array([[7], [8], [9], [10]], np.float32)
    expected = [[7, -1, -1], [8, -1, 1], [9, 1, -1], [10, 1, 1]]
    np.testing.assert_array_equal(encoder.project(rows), expected)
    np.testing.assert_array_equal(encoder.project(rows[None])[0], expected)
    positions = np.array([[0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(encoder.project(rows[:1], positions), [[7, 0, 2]])


def test_a_weight_of_one_makes_places_vary_as_descriptors_do():
    values, positions = sample(20_000)
    encoder = ImageEncoder.learn(values, positions, Vlad(2), **{**LEARN, "position_weight": 1.0})
    projected = encoder.project(values, positions).var(axis=0)
    assert projected[-2:].sum() == pytest.approx(projected[:-2].sum(), rel=0.05)


def test_learning_is_doing_it_step_by_step():
    values, positions = sample()
    settings = {**LEARN, "pca": 4, "square_root": True}
    encoder = ImageEncoder.learn(values, positions, FisherVector(3), **settings)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-300)
    rows = np.sqrt(shares).astype(np.float32)
    pca = DescriptorPca(4).fit(rows)
    fisher = FisherVector(3).fit(pca.transform(rows))
    local = images()
    shares = local / np.maximum(local.sum(axis=2, keepdims=True), 1e-300)
    expected = fisher.transform(pca.transform(np.sqrt(shares).astype(np.float32)))
    np.testing.assert_array_equal(encoder.encode(local), expected)


def test_hard_words_are_learnt_in_bytes():
    """Rounding moves words and descriptors little: nearly all of them stay together."""
    values, positions = sample()
    encoder = ImageEncoder.learn(values, positions, BagOfWords(8), **{**LEARN, "pca": 4})
    rows, words = encoder.project(values, positions), encoder.encoder
    assert np.log2(words.step_) % 1 == 0
    assert 63 < np.abs(rows / words.step_).max() <= 128
    steps = words.codebook_ / (2 * words.step_)
    np.testing.assert_array_equal(steps, np.rint(steps))
    exact = BagOfWords(8).fit(encoder.pca.transform(values))
    agree = exact.assign(encoder.pca.transform(values)) == encoder.encoder.assign(rows)
    assert agree.mean() > 0.95


@pytest.mark.parametrize("kind", ENCODERS)
def test_saved_loaded_and_in_batches(kind, tmp_path):
    values, positions = sample()
    settings = {**LEARN, "levels": ("1x1", "2x1"), "pca": 4, "position_weight": 0.5}
    encoder = ImageEncoder.learn(values, positions, ENCODERS[kind](), **settings)
    encoder.learn_idf([images(5, seed=3), images(2, seed=4)])
    np.savez(tmp_path / "encoder.npz", allow_pickle=False, **encoder.to_arrays())
    loaded = ImageEncoder.from_arrays(read_arrays(tmp_path / "encoder.npz"))
    local = images(5)
    features = encoder.encode(local)
    assert features.shape == (5, encoder.pyramid.width)
    np.testing.assert_array_equal(loaded.encode(local), features)
    parts = [loaded.encode(local[:1]), loaded.encode(local[1:])]
    np.testing.assert_array_equal(np.concatenate(parts), features)
    assert loaded.preparation == encoder.preparation
    assert loaded.levels == ("1x1", "2x1")


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_number_of_threads_changes_nothing(kind, monkeypatch):
    values, positions = sample()
    encoder = ImageEncoder.learn(values, positions, ENCODERS[kind](), **LEARN)
    encoder.learn_idf([images()])
    found = {}
    for count in (1, 3):
        monkeypatch.setattr(threads, "available_cpus", lambda count=count: count)
        found[count] = encoder.encode(images(7))
    np.testing.assert_array_equal(found[1], found[3])


def test_idf_is_learnt_from_the_words_of_images():
    bow = BagOfWords(2, tf_idf=True)
    bow.codebook_ = np.array([[0], [9]], np.float32)
    encoder = ImageEncoder(bow, ("1x1",), GRID)
    first = np.zeros((1, 4, 1), np.float32)
    second = np.array([[[0], [0], [0], [9]]], np.float32)
    encoder.learn_idf([first, second])
    np.testing.assert_allclose(bow.idf_, [np.log(3 / 3) + 1, np.log(3 / 2) + 1])


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({"assignment": "soft"}, ("1x1",)),
        ({"tf_idf": True}, ("1x1",)),
        ({"normalisation": "hellinger"}, ("1x1",)),
        ({}, ("1x1", "2x2")),
    ],
)
def test_only_shares_of_hard_words_of_whole_images_explain(changes, levels):
    assert ImageEncoder(BagOfWords(2), ("1x1",), GRID).explains
    assert not ImageEncoder(BagOfWords(2, **changes), levels, GRID).explains
    assert not ImageEncoder(Vlad(2), ("1x1",), GRID).explains


@pytest.mark.parametrize("shape", [(4, 2), (2, 3, 2), (0, 4, 2)])
def test_images_that_do_not_fit_the_grid(shape):
    with pytest.raises(InputError, match=r"descriptors must be an array \[N, 4, D\]"):
        plain().encode(np.zeros(shape, np.float32))
