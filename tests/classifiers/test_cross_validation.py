"""Kernels and SVMs: by hand, against scikit-learn, and what always holds."""

import dataclasses
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import chi2_kernel, rbf_kernel
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from scenetrack import classifiers
from scenetrack.classifiers import (
    FittedClassifier,
    cross_validation,
    feature_rows,
    fit_by_cross_validation,
    kernels,
    out_of_fold_scores,
    refit,
)
from scenetrack.classifiers.feature_rows import PREPARATIONS, Rows
from scenetrack.classifiers.grid_search import best_setting
from scenetrack.classifiers.kernels import compare, kernel_matrix
from scenetrack.classifiers.svm import kernel_machines
from scenetrack.config import KERNELS
from scenetrack.errors import InputError


def histograms_of_classes(per_class, classes=3, words=12, seed=0):
    """Histograms [N, words] of ``classes`` overlapping word distributions, and labels."""
    rng = np.random.default_rng(seed)
    profiles = rng.dirichlet(np.ones(words), classes)
    labels = np.repeat(np.arange(classes), per_class)
    counts = np.stack([rng.multinomial(40, profiles[label]) for label in labels])
    return (counts / 40).astype(np.float32), labels


def blobs(per_class, classes=3, width=5, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    return centres[labels] + rng.standard_normal((len(labels), width)), labels


def fit(features, labels, kernel, *, preparation="square_root", folds=3, seed=0, **more):
    return fit_by_cross_validation(
        features, labels, kernel, preparation=preparation, folds=folds, seed=seed, **more
    )


X = np.array([[0.5, 0.5, 0.0]])
Y = np.array([[0.25, 0.25, 0.5], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("linear", [0.25, 0.5, 0.0]),
        ("rbf", [0.0625 + 0.0625 + 0.25, 0.0, 0.25 + 0.25 + 1.0]),
        ("chi2", [0.0625 / 0.75 + 0.0625 / 0.75 + 0.25 / 0.5, 0.0, 2.0]),
        ("intersection", [0.5, 1.0, 0.0]),
    ],
)
def test_comparisons_of_three_words_by_hand(kernel, expected):
    np.testing.assert_allclose(compare(Rows(X), Rows(Y), kernel), [expected], atol=1e-6)


def test_gamma_scales_distances_only():
    compared = np.array([[0.0, 2.0]])
    for kernel in ("rbf", "chi2"):
        np.testing.assert_allclose(kernel_matrix(compared, kernel, 0.5), [[1, np.exp(-1)]])
    for kernel in ("linear", "intersection"):
        np.testing.assert_array_equal(kernel_matrix(compared, kernel, 0.0), compared)


@pytest.mark.parametrize("block_bytes", [1, 300, 2**18])
@pytest.mark.parametrize("kernel", ["chi2", "intersection"])
def test_rows_with_themselves_are_as_with_a_copy(monkeypatch, block_bytes, kernel):
    monkeypatch.setattr(kernels, "_BLOCK_BYTES", block_bytes)
    rows = Rows(histograms_of_classes(9)[0])
    other = Rows(rows.values.copy())
    np.testing.assert_allclose(
        compare(rows, rows, kernel), compare(rows, other, kernel), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("block_bytes", [1, 300, 2**18])
def test_kernels_agree_with_scikit_learn(monkeypatch, block_bytes):
    monkeypatch.setattr(kernels, "_BLOCK_BYTES", block_bytes)
    left = histograms_of_classes(5, seed=1)[0].astype(float)
    right = histograms_of_classes(7, seed=2)[0].astype(float)
    both = {
        "rbf": rbf_kernel(left, right, gamma=0.7),
        "chi2": chi2_kernel(left, right, gamma=0.7),
        "intersection": np.minimum(left[:, None], right).sum(axis=2),
        "linear": left @ right.T,
    }
    for kernel, expected in both.items():
        ours = kernel_matrix(compare(Rows(left), Rows(right), kernel), kernel, 0.7)
        np.testing.assert_allclose(ours, expected, atol=1e-6, err_msg=kernel)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(KERNELS)), st.floats(0.1, 10))
def test_kernels_of_histograms_are_symmetric_and_positive(seed, kernel, gamma):
    rng = np.random.default_rng(seed)
    rows = Rows(rng.dirichlet(np.full(6, 0.3), 15))
    matrix = kernel_matrix(compare(rows, rows, kernel), kernel, gamma)
    # The distance is summed in float32, and the kernel magnifies its rounding by gamma.
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * max(1, gamma))
    assert np.linalg.eigvalsh(matrix).min() > -1e-5


@pytest.mark.parametrize("kernel", KERNELS)
def test_new_histograms_are_classified_well_above_chance(kernel):
    features, labels = histograms_of_classes(20)
    found = fit(features[::2], labels[::2], kernel)
    assert found.cv_accuracy > 0.8
    assert np.mean(found.predict(features[1::2]) == labels[1::2]) > 0.8


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_scores_are_those_of_scikit_learn_with_the_chosen_setting(kernel):
    features, labels = blobs(15)
    # Columns in very different units, which only standardisation makes comparable.
    features *= np.logspace(-3, 3, features.shape[1])
    found = fit(features, labels, kernel, preparation="standardise")
    # Ours scales to mean squared length 1 and not D: the same machine with another unit.
    width = features.shape[1]
    c, gamma = found.C, found.gamma
    svc = SVC(C=c / width, kernel="linear")
    if kernel == "rbf":
        svc = SVC(C=c, kernel="rbf", gamma=gamma / width)
    theirs = make_pipeline(StandardScaler(), OneVsRestClassifier(svc))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    # Fails if our scaler saw the held-out part of a fold.
    assert found.cv_accuracy == pytest.approx(
        cross_val_score(theirs, features, labels, cv=folds).mean()
    )
    expected = theirs.fit(features, labels).decision_function(features)
    np.testing.assert_allclose(found.predict_scores(features), expected, atol=5e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_arrays_rebuild_the_classifier_through_a_file_without_pickles(kernel, tmp_path):
    features, labels = histograms_of_classes(10)
    found = fit(features, labels, kernel)
    np.savez(tmp_path / "svm.npz", allow_pickle=False, **found.to_arrays())
    with np.load(tmp_path / "svm.npz", allow_pickle=False) as arrays:
        again = FittedClassifier.from_arrays(arrays)
    np.testing.assert_array_equal(again.predict_scores(features), found.predict_scores(features))
    np.testing.assert_array_equal(again.predict(features), found.predict(features))
    assert again.best_params == found.best_params
    assert again.cv_accuracy == found.cv_accuracy
    assert again.kernel == kernel


def test_a_missing_array_is_named():
    arrays = fit(*histograms_of_classes(6), "linear").to_arrays()
    del arrays["dual"]
    with pytest.raises(InputError, match=r"dual: numbers \[C, \d+\]\. Received: none"):
        FittedClassifier.from_arrays(arrays)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("kernel", "cubic", "a kernel of linear, rbf, chi2, intersection"),
        ("preparation", "pickled", "a preparation of square_root, standardise, none"),
        ("scale", np.zeros(1), "a scale above 0"),
        ("gamma", -1.0, "a gamma of at least 0"),
        ("C", 0.123, "a C and gamma of cv_table"),
        ("classes", np.array([0, 0, 1]), "classes in ascending order"),
        ("intercept", np.zeros(4), r"intercept: numbers \[3\]\. Received: float64 \[4\]"),
        ("support", np.zeros((2, 9)), r"dual: numbers \[C, 2\]\. Received: float64 \[3, 3\]"),
    ],
)
def test_a_classifier_that_cannot_be_is_refused(name, value, said):
    arrays = fit(*histograms_of_classes(6), "linear").to_arrays()
    with pytest.raises(InputError, match=said):
        FittedClassifier.from_arrays({**arrays, name: np.asarray(value)})


def test_a_standardised_one_needs_a_mean_of_each_value():
    features, labels = histograms_of_classes(6)
    arrays = fit(features, labels, "linear", preparation="standardise").to_arrays()
    one = {"mean": np.zeros(1), "scale": np.ones(1)}
    with pytest.raises(InputError, match=f"{features.shape[1]} values of mean and scale"):
        FittedClassifier.from_arrays({**arrays, **one})


@pytest.mark.parametrize("kernel", ["linear", "chi2"])
def test_the_same_seed_gives_the_same_classifier(kernel):
    features, labels = histograms_of_classes(12)
    first, second = (fit(features, labels, kernel, seed=5) for _ in range(2))
    for name, values in first.to_arrays().items():
        np.testing.assert_array_equal(values, second.to_arrays()[name], err_msg=name)
    other = fit(features, labels, kernel, seed=6)
    assert not np.array_equal(other.cv_table, first.cv_table)


@pytest.mark.parametrize("kernel", ["linear", "intersection"])
def test_renaming_the_classes_renames_the_answers(kernel):
    features, labels = histograms_of_classes(20)
    # Renames in the same order of classes: the folds stay, so all else must too.
    names = np.array([3, 7, 11])
    plain, renamed = fit(features, labels, kernel), fit(features, names[labels], kernel)
    np.testing.assert_array_equal(renamed.predict(features), names[plain.predict(features)])
    assert renamed.classes.tolist() == [3, 7, 11]
    # In another order the columns of the scores of one setting are permuted.
    permutation = np.array([2, 0, 1])
    rows = Rows(features)
    matrix = kernel_matrix(compare(rows, rows, kernel), kernel, 0.0)
    dual, intercept = kernel_machines(matrix, labels, 1.0)
    moved_dual, moved_intercept = kernel_machines(matrix, permutation[labels], 1.0)
    np.testing.assert_allclose(moved_dual[permutation], dual, atol=1e-9)
    np.testing.assert_allclose(moved_intercept[permutation], intercept, atol=1e-9)


def test_the_table_holds_every_setting_and_the_chosen_one_is_its_best():
    found = fit(*histograms_of_classes(10), "chi2")
    assert len(found.cv_table) == len(classifiers.C_GRID) * len(classifiers.GAMMA_FACTORS)
    assert found.cv_accuracy == pytest.approx(found.cv_table[:, 2].max())
    assert found.best_params == {"C": found.C, "gamma": found.gamma}
    assert [found.C, found.gamma] in found.cv_table[:, :2].tolist()


def test_equal_accuracies_go_to_the_smaller_c_and_then_gamma():
    table = np.array(
        [
            [10.0, 1.0, 0.9, 0.1],
            [1.0, 2.0, 0.9, 0.2],
            [1.0, 1.0, 0.9 - 1e-16, 0.2],
            [0.1, 1.0, 0.8, 0.0],
        ]
    )
    assert best_setting(table) == (1.0, 1.0)


def test_the_support_holds_no_unused_vectors_and_linear_one_weight_vector_a_class():
    features, labels = histograms_of_classes(20)
    curved = fit(features, labels, "intersection")
    assert curved.dual.any(axis=0).all()
    assert fit(features, labels, "linear").support.shape == (3, features.shape[1])


def test_constant_features_are_no_failure():
    features, labels = blobs(8)
    features[:, 0] = 4.0
    assert np.isfinite(fit(features, labels, "rbf", preparation="standardise").cv_accuracy)
    flat = fit(np.ones((12, 4)), np.repeat([0, 1], 6), "rbf", preparation="standardise")
    assert np.isfinite(flat.predict_scores(np.ones((1, 4)))).all()


def test_a_class_with_fewer_images_than_folds_reduces_them_and_says_so(caplog):
    features, labels = histograms_of_classes(6)
    features, labels = features[:-4], labels[:-4]  # class 2 keeps two images
    with caplog.at_level(logging.WARNING, logger="scenetrack.classifiers"):
        reduced = fit(features, labels, "linear", folds=5)
    assert "2 folds instead of 5: class 2" in caplog.text
    np.testing.assert_array_equal(
        reduced.cv_table, fit(features, labels, "linear", folds=2).cv_table
    )


def test_a_class_with_one_image_is_refused():
    features, labels = histograms_of_classes(6)
    with pytest.raises(InputError, match=r"at least 2 .* 1 of class 2"):
        fit(features[:-5], labels[:-5], "linear")


@pytest.mark.parametrize(
    ("features", "labels", "kernel", "message"),
    [
        (np.ones((4, 2)), [0, 0, 1, 1], "cubic", "one of: linear, rbf, chi2, intersection"),
        (np.ones((4, 2)), [0, 0, 1], "linear", "4 features need 4 labels"),
        (np.ones((4, 2)), [0, 0, 0, 0], "linear", "two classes"),
        (np.ones(4), [0, 0, 1, 1], "linear", r"\[N, D\]"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], "linear", "finite"),
        (-np.ones((4, 2)), [0, 0, 1, 1], "chi2", "never negative"),
    ],
)
def test_what_cannot_be_fitted(features, labels, kernel, message):
    with pytest.raises(InputError, match=message):
        fit(features, labels, kernel, preparation="standardise")


def test_scoring_checks_its_features():
    found = fit(*histograms_of_classes(6), "linear")
    with pytest.raises(InputError, match="must have 12 values"):
        found.predict_scores(np.ones((2, 5)))
    with pytest.raises(InputError, match="never negative"):
        found.predict_scores(-np.ones((2, 12)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_refitting_keeps_the_settings_and_forgets_the_images_left_out(kernel, preparation):
    features, labels = histograms_of_classes(12)
    found = fit(features, labels, kernel, preparation=preparation)
    same = refit(found, features, labels)
    np.testing.assert_array_equal(same.predict_scores(features), found.predict_scores(features))
    fewer = refit(found, features[::2], labels[::2])
    assert fewer.best_params == found.best_params
    assert not np.array_equal(fewer.predict_scores(features), found.predict_scores(features))


def normalised(count, width, seed=0):
    """Vectors [count, width] of length 1 around one direction a class, of either sign."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    rows = 0.3 * np.random.default_rng(1).standard_normal((3, width))[labels]
    rows = rows + rng.standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("part_bytes", [8 * 60 * 7, 2**25])
def test_encodings_are_taken_as_they_are(monkeypatch, kernel, part_bytes):
    """More values than images, in several parts of columns, against scikit-learn."""
    monkeypatch.setattr(feature_rows, "_PART_BYTES", part_bytes)
    features, labels = normalised(60, 150)
    found = fit(features, labels, kernel, preparation="none")
    svc = SVC(C=found.C, kernel=kernel, gamma=found.gamma or "scale")
    theirs = OneVsRestClassifier(svc).fit(features.astype(float), labels)
    new = normalised(20, 150, seed=2)[0]
    np.testing.assert_allclose(
        found.predict_scores(new), theirs.decision_function(new.astype(float)), atol=5e-3
    )
    assert found.support.dtype == np.float32
    assert not found.mean.any()


@pytest.mark.parametrize("kernel", ["chi2", "intersection"])
def test_histogram_kernels_refuse_encodings_of_either_sign(kernel):
    with pytest.raises(InputError, match=f"the {kernel} kernel .* choose linear or rbf"):
        fit(*normalised(12, 4), kernel, preparation="none")


def test_fold_scores_are_of_the_folds_own_features():
    """Features in another order of columns for each fold: all else would mix them up."""
    features, labels = histograms_of_classes(12)

    def turned(train):
        return np.roll(features, int(train.sum()) % features.shape[1], axis=1)

    plain = fit(features, labels, "linear")
    folded = fit(features, labels, "linear", fold_features=turned)
    np.testing.assert_allclose(folded.cv_table, plain.cv_table, atol=1e-12)
    theirs = out_of_fold_scores(plain, features, labels, 3, seed=0)
    np.testing.assert_allclose(folded.fold_scores, theirs, atol=2e-5)
    assert refit(folded, features, labels).fold_scores is None
    assert FittedClassifier.from_arrays(folded.to_arrays()).fold_scores is None


def test_only_histograms_are_square_rooted():
    with pytest.raises(InputError, match="square-rooted, are never negative"):
        fit(*normalised(12, 4), "linear")


def test_an_unknown_preparation_is_refused():
    with pytest.raises(InputError, match=r"square_root, standardise, none\. Received: 'whiten'"):
        fit(*normalised(12, 4), "linear", preparation="whiten")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_features_that_no_fold_changes_give_the_same_classifier(kernel, preparation):
    features, labels = histograms_of_classes(12)
    asked = []

    def unchanged(train):
        asked.append(train)
        return features

    plain = fit(features, labels, kernel, preparation=preparation)
    folded = fit(features, labels, kernel, preparation=preparation, fold_features=unchanged)
    np.testing.assert_allclose(folded.cv_table, plain.cv_table, atol=1e-12)
    np.testing.assert_array_equal(folded.predict_scores(features), plain.predict_scores(features))
    assert (plain.cv_scope, folded.cv_scope) == (
        "classifier only",
        "descriptor encoder inside the folds",
    )
    assert plain.provenance["cv_scope"] == "classifier only"
    assert folded.provenance["cv_scope"] == "descriptor encoder inside the folds"
    # Two ways to the scores of images that a machine was not fitted on.
    theirs = out_of_fold_scores(plain, features, labels, 3, seed=0)
    np.testing.assert_allclose(folded.fold_scores, theirs, atol=2e-5)
    assert plain.fold_scores is None
    # Once for each fold; every image is held out of one of them.
    assert len(asked) == 3
    held = [np.setdiff1d(np.arange(len(labels)), train) for train in asked]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(len(labels)))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_held_out_images_judge_settings_fitted_on_the_others(monkeypatch, kernel, mapped):
    """Their accuracies are those of ``refit`` without them, setting by setting."""
    monkeypatch.setattr(cross_validation, "MAPPED_FROM", 0 if mapped else 10_000)
    features, labels = histograms_of_classes(24)
    held_out = np.arange(len(labels))[::4]
    kept = np.setdiff1d(np.arange(len(labels)), held_out)
    found = fit(features, labels, kernel, preparation="none", held_out=held_out)
    assert found.cv_scope == "held-out images"
    for c, gamma, accuracy, spread in found.cv_table[:: 3 if mapped else 1]:
        setting = dataclasses.replace(found, C=c, gamma=gamma)
        alone = refit(setting, features[kept], labels[kept])
        right = np.mean(alone.predict(features[held_out]) == labels[held_out])
        assert accuracy == pytest.approx(right, abs=0.05 if mapped else 1e-12)
        assert spread == 0


def test_held_out_images_leave_every_class_one_to_learn_from():
    features, labels = histograms_of_classes(12)
    with pytest.raises(InputError, match="none of class number 1; hold out fewer"):
        fit(features, labels, "linear", preparation="none", held_out=np.flatnonzero(labels == 1))


@pytest.mark.parametrize("mapped", [False, True])
def test_what_a_transformer_learnt_of_images_held_out_does_not_count(monkeypatch, mapped):
    """A transformer that knows the labels of its own images, and nothing else."""
    monkeypatch.setattr(cross_validation, "MAPPED_FROM", 0 if mapped else 10_000)
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = rng.standard_normal((90, 4)).astype(np.float32)

    def learnt(train):
        known = np.where(np.isin(np.arange(90), train)[:, None], np.eye(3)[labels], 0)
        return np.concatenate([noise, 9 * known], axis=1)

    everything = learnt(np.arange(90))
    outside = fit(everything, labels, "linear", preparation="standardise")
    inside = fit(everything, labels, "linear", preparation="standardise", fold_features=learnt)
    assert outside.cv_accuracy == 1
    assert inside.cv_accuracy < 0.6


def test_a_fold_needs_features_of_all_images():
    features, labels = histograms_of_classes(6)
    with pytest.raises(InputError, match=r"features of all 18 images\. Received: 12"):
        fit(features, labels, "linear", fold_features=lambda train: features[train])


@pytest.mark.parametrize("count", [1023, 1024, 1025])
def test_scores_do_not_depend_on_how_many_are_asked_for_at_a_time(count):
    features, labels = histograms_of_classes(10)
    found = fit(features, labels, "chi2")
    asked = np.resize(features, (count, features.shape[1]))
    expected = np.resize(found.predict_scores(features), (count, 3))
    np.testing.assert_allclose(found.predict_scores(asked), expected, atol=1e-12)
