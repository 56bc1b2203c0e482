"""Fisher vectors: by hand, against scikit-image and ten lines of NumPy, and what always holds."""

import logging
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import fisher_vector
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from scenetrack.encoders.fisher_vector import FisherVector
from scenetrack.encoders.gaussian_mixture import DiagonalMixture
from scenetrack.errors import InputError
from scenetrack.system.arrays import read_arrays


def mixture_of(weights, means, variances, centre=None):
    means = np.asarray(means, np.float32)
    centre = np.zeros(means.shape[1]) if centre is None else centre
    arrays = (centre, weights, means, variances)
    return DiagonalMixture(*(np.asarray(array, np.float32) for array in arrays))


def encoder_of(mixture):
    encoder = FisherVector(len(mixture.means))
    encoder.mixture_ = mixture
    return encoder


def clusters(count, width=6, seed=0):
    """Descriptors around 12 centres, as real ones are."""
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(99).standard_normal((12, width)) + 5
    noise = rng.standard_normal((count, width)) * np.linspace(0.3, 1.5, width)
    return (centres[rng.integers(12, size=count)] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return FisherVector(8, random_state=1).fit(clusters(3000))


def scikit_mixture(mixture):
    """The same components for scikit-learn and scikit-image, in float64."""
    gmm = GaussianMixture(len(mixture.means), covariance_type="diag")
    gmm.weights_ = mixture.weights.astype(np.float64)
    gmm.means_ = mixture.means.astype(np.float64) + mixture.centre
    gmm.covariances_ = mixture.variances.astype(np.float64)
    gmm.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    return gmm


def reference(rows, mixture):
    """The improved Fisher vector as the paper has it, descriptor by descriptor."""
    deviations = np.sqrt(mixture.variances.astype(np.float64))
    gradients = np.zeros((2, *deviations.shape))
    for row in (rows - mixture.centre).astype(np.float64):
        z = (row - mixture.means) / deviations
        density = mixture.weights * np.exp(-(z**2).sum(axis=1) / 2) / deviations.prod(axis=1)
        q = (density / density.sum())[:, None] / np.sqrt(mixture.weights)[:, None]
        gradients += q * z, q * (z**2 - 1) / np.sqrt(2)
    powered = np.sign(gradients.ravel()) * np.sqrt(np.abs(gradients.ravel()) / len(rows))
    return powered / np.linalg.norm(powered)


def test_one_component_and_one_descriptor_by_hand():
    # z = ((3, 1) - (1, 1)) / (1, 2) = (2, 0): gradients 2, 0, (4 - 1) / sqrt 2, (0 - 1) / sqrt 2.
    encoder = encoder_of(mixture_of([1], [[1, 1]], [[1, 4]]))
    raw = np.array([2, 0, 3 / np.sqrt(2), -1 / np.sqrt(2)])
    powered = np.sign(raw) * np.sqrt(np.abs(raw))
    encoded = encoder.transform(np.array([[[3, 1]]], np.float32))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [powered / np.linalg.norm(powered)], rtol=1e-6)


def test_means_come_before_deviations_component_by_component():
    # Far apart, so that each descriptor belongs to one component alone; weights 1/4 and 3/4.
    encoder = encoder_of(mixture_of([0.25, 0.75], [[-50], [50]], [[1], [4]]))
    # z = 1, 3 for the first component; z = 1 for the second.
    rows = np.array([[-49], [-47], [52]], np.float32)
    raw = np.array([4 / 0.5, 1 / np.sqrt(0.75), 8 / np.sqrt(2) / 0.5, 0])
    powered = np.sqrt(raw)
    np.testing.assert_allclose(
        encoder.transform([rows])[0], powered / np.linalg.norm(powered), rtol=0, atol=1e-6
    )


def test_descriptors_at_the_mean_of_everything_have_only_the_second_part():
    encoder = encoder_of(mixture_of([1], [[2, -3]], [[1, 1]], centre=[1, 1]))
    encoded = encoder.transform(np.full((1, 5, 2), [3, -2], np.float32))
    np.testing.assert_allclose(encoded, [[0, 0, -np.sqrt(0.5), -np.sqrt(0.5)]], rtol=1e-6)


def test_agrees_with_the_definition(fitted):
    rows = clusters(70, seed=2)
    np.testing.assert_allclose(
        fitted.transform(rows[None])[0], reference(rows, fitted.mixture_), rtol=0, atol=2e-6
    )


def test_descriptors_of_a_plain_sky_cancel_no_digits():
    """All equal and far from all others: their component has hardly any extent."""
    rows, image = clusters(3000), clusters(700, seed=2)
    rows[::7] = image[::3] = -40
    encoder = FisherVector(8).fit(rows)
    assert encoder.mixture_._near == 7
    np.testing.assert_allclose(
        encoder.transform(image[None])[0], reference(image, encoder.mixture_), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("far", [0.0, 3.0, np.inf])
def test_float64_serves_any_component(monkeypatch, fitted, far):
    monkeypatch.setattr("scenetrack.encoders.gaussian_mixture._FAR", far)
    encoder = encoder_of(DiagonalMixture(**fitted.to_arrays()))
    rows = clusters(70, seed=2)
    np.testing.assert_allclose(
        encoder.transform([rows]), fitted.transform([rows]), rtol=0, atol=1e-5
    )


def test_agrees_with_scikit_image(fitted):
    """Which also has weights, and deviations of the other sign."""
    rows = clusters(70, seed=2)
    raw = fisher_vector(rows.astype(np.float64), scikit_mixture(fitted.mixture_))
    size = fitted.mixture_.means.size
    raw = np.concatenate([raw[-2 * size : -size], -raw[-size:]])
    powered = np.sign(raw) * np.sqrt(np.abs(raw))
    np.testing.assert_allclose(
        fitted.transform(rows[None])[0], powered / np.linalg.norm(powered), rtol=0, atol=2e-6
    )


def test_sums_and_likelihood_agree_with_scikit_learn(fitted):
    rows = clusters(2500, seed=3)
    gmm, mixture = scikit_mixture(fitted.mixture_), fitted.mixture_
    sums, likelihood = mixture.sums(rows)
    z = rows.astype(np.float64) - mixture.centre
    powers = np.concatenate([z, z**2, np.ones((len(rows), 1))], axis=1)
    expected = gmm.predict_proba(rows.astype(np.float64)).T @ powers
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-2)
    constant = rows.shape[1] * np.log(2 * np.pi) / 2
    assert likelihood / len(rows) - constant == pytest.approx(gmm.score(rows), rel=1e-5)


def test_the_fit_goes_the_way_of_scikit_learn():
    """From the same start, as many steps."""
    rows = clusters(3000)
    start = DiagonalMixture.learn(rows, 8, seed=0, iterations=0)
    gmm = GaussianMixture(
        8,
        covariance_type="diag",
        max_iter=4,
        tol=0,
        weights_init=start.weights / start.weights.sum(dtype=np.float64),
        means_init=start.means + start.centre,
        precisions_init=1 / start.variances,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        gmm.fit(rows.astype(np.float64))
    ours = DiagonalMixture.learn(rows, 8, seed=0, iterations=4)
    np.testing.assert_allclose(ours.weights, gmm.weights_, rtol=1e-3)
    np.testing.assert_allclose(ours.means + ours.centre, gmm.means_, atol=1e-3)
    np.testing.assert_allclose(ours.variances, gmm.covariances_, rtol=1e-3)


def test_the_fit_stops_when_nothing_grows_and_says_when_it_had_to(caplog):
    rows = clusters(3000)
    caplog.set_level(logging.INFO, "scenetrack.encoders.gaussian_mixture")
    enough = DiagonalMixture.learn(rows, 4, seed=0, iterations=500)
    assert caplog.messages == []
    more = DiagonalMixture.learn(rows, 4, seed=0, iterations=1000)
    np.testing.assert_array_equal(enough.means, more.means)
    DiagonalMixture.learn(rows, 4, seed=0, iterations=1)
    assert len(caplog.messages) == 1


def test_separated_gaussians_are_found():
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.normal([0, 0], [1, 2], (6000, 2)), rng.normal([20, 5], [0.5, 1], (2000, 2))]
    )
    mixture = FisherVector(2).fit(rows.astype(np.float32)).mixture_
    order = np.argsort(mixture.means[:, 0])
    np.testing.assert_allclose(mixture.weights[order], [0.75, 0.25], atol=1e-3)
    centres = (mixture.means + mixture.centre)[order]
    np.testing.assert_allclose(centres, [[0, 0], [20, 5]], atol=0.1)
    # The sample's variance in the first dimension is about 76, and a hundredth of it the least.
    expected = [[1, 4], [rows[:, 0].var() / 100, 1]]
    np.testing.assert_allclose(mixture.variances[order], expected, rtol=0.06)


def test_the_seed_decides_the_mixture_and_the_number_of_threads_does_not():
    rows = clusters(4000)
    first = FisherVector(10, random_state=3).fit(rows)
    with threadpool_limits(1):
        second = clone(first).fit(rows)
    for name, array in first.to_arrays().items():
        np.testing.assert_array_equal(array, second.to_arrays()[name])
    reseeded = FisherVector(10, random_state=4).fit(rows)
    assert not np.array_equal(first.mixture_.means, reseeded.mixture_.means)


def test_neither_threads_nor_other_images_change_a_vector(fitted):
    images = clusters(8000, seed=8).reshape(4, 2000, 6)
    together = fitted.transform(images)
    alone = [fitted.transform(image[None])[0] for image in images]
    np.testing.assert_array_equal(together, alone)
    with threadpool_limits(1):
        np.testing.assert_array_equal(together, fitted.transform(images))


def test_equal_descriptors_are_no_failure():
    rows = np.full((50, 3), 7, np.float32)
    encoded = FisherVector(4).fit(rows).transform(rows[None])
    np.testing.assert_allclose(np.linalg.norm(encoded), 1, rtol=1e-6)
    np.testing.assert_array_equal(encoded[0, :12], 0)


def test_a_dimension_without_variance_is_no_failure():
    rows = clusters(500)
    rows[:, 2] = 4
    mixture = FisherVector(5).fit(rows).mixture_
    assert (mixture.variances > 0).all()
    np.testing.assert_array_equal(mixture.means[:, 2], 0)


def test_a_component_without_descriptors_stays_where_it_is():
    mixture = mixture_of([0.5, 0.5], [[0], [1000]], [[1], [2]])
    rows = np.random.default_rng(0).standard_normal((200, 1)).astype(np.float32)
    moved = mixture.fitted_to(mixture.sums(rows)[0], np.array([0.01]))
    assert moved.means[1] == 1000
    assert moved.variances[1] == 2
    # As much as one descriptor has.
    np.testing.assert_allclose(moved.weights, [200 / 201, 1 / 201], rtol=1e-6)


def test_regions_are_encoded_as_if_they_were_images(fitted):
    rows = clusters(90, seed=4)
    regions = np.zeros((4, 90), bool)
    regions[0] = True
    regions[1, ::2] = True
    regions[2, :50] = True
    encoded = fitted.pool(rows, regions)
    images = [rows, rows[::2], rows[:50]]
    np.testing.assert_allclose(encoded[:3], fitted.transform(images), rtol=0, atol=5e-5)
    np.testing.assert_array_equal(encoded[3], 0)
    np.testing.assert_array_equal(fitted.pool(rows, regions[3:]), 0)


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 2500])
def test_blocks_change_nothing(fitted, count):
    rows = clusters(count, seed=5)
    halves = [fitted.mixture_.sums(part)[0] for part in np.array_split(rows, 2)]
    whole = fitted.mixture_.sums(rows)[0]
    np.testing.assert_allclose(whole, sum(halves), rtol=1e-4, atol=1e-4 * count)


def test_no_posterior_is_subnormal():
    """Products with such numbers would be many times slower."""
    mixture = mixture_of([0.5, 0.5], [[0], [1000]], [[1], [2]])
    sums, likelihood = mixture.sums(np.array([[0.5]], np.float32))
    np.testing.assert_allclose(sums[:, -1], [1, np.exp(-60)], rtol=1e-5)
    assert likelihood == pytest.approx(np.log(0.5) - 0.125)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_order_and_copies_of_descriptors_change_nothing(fitted, seed, count):
    rng = np.random.default_rng(seed)
    rows = clusters(count, seed=seed % 1000)
    encoded = fitted.transform([rows])
    np.testing.assert_allclose(np.linalg.norm(encoded), 1, rtol=1e-6)
    mixed = [rng.permutation(rows), np.repeat(rows, 3, axis=0)]
    np.testing.assert_allclose(
        fitted.transform(mixed), np.repeat(encoded, 2, axis=0), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**12])
def test_units_change_nothing(fitted, scale):
    mixture, rows = fitted.mixture_, clusters(300, seed=7)
    scaled = encoder_of(
        mixture_of(
            mixture.weights,
            scale * mixture.means,
            scale**2 * mixture.variances,
            scale * mixture.centre,
        )
    )
    np.testing.assert_allclose(
        scaled.transform([scale * rows]), fitted.transform([rows]), rtol=0, atol=1e-4
    )


def test_width_and_preparation(fitted):
    assert fitted.width == 2 * 8 * 6 == fitted.transform(clusters(5)[None]).shape[1]
    assert fitted.preparation == "none"


def test_a_saved_one_gives_the_same(tmp_path, fitted):
    np.savez(tmp_path / "fisher.npz", allow_pickle=False, **fitted.to_arrays())
    loaded = FisherVector.from_arrays(read_arrays(tmp_path / "fisher.npz"))
    rows = clusters(40, seed=6)[None]
    np.testing.assert_array_equal(loaded.transform(rows), fitted.transform(rows))
    assert loaded.codebook_size == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", np.zeros((8, 5))),
        ("centre", np.zeros((1, 6))),
        ("weights", np.zeros(8)),
        ("variances", np.full((8, 6), np.nan)),
        ("weights", None),
    ],
)
def test_broken_arrays_are_refused(fitted, name, value):
    arrays = {**fitted.to_arrays(), name: value}
    if value is None:
        del arrays[name]
    with pytest.raises(InputError, match="a saved fisher vector needs"):
        FisherVector.from_arrays(arrays)


def test_fewer_descriptors_than_components_says_both_numbers():
    with pytest.raises(InputError, match=r"100.*Received: 99"):
        FisherVector(100).fit(clusters(99))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([np.ones((2, 6)), np.ones((0, 6))], "image 1 has none"),
        (np.ones((1, 2, 5)), "must have 6 values"),
        (np.full((1, 2, 6), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_encoded(fitted, images, message):
    with pytest.raises(InputError, match=message):
        fitted.transform(images)


def test_regions_of_another_length_are_refused(fitted):
    with pytest.raises(InputError, match="regions"):
        fitted.pool(clusters(5), np.ones((1, 4), bool))
