"""scikit-learn's own checks of the estimators; those that cannot hold are listed with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from scenetrack import BagOfWords, DenseSift, FisherVector, Vlad

SHAPE = "transform takes the descriptors of several images [N, n, D], not one matrix"
ERROR = "bad input is an InputError, one line for people, and not a ValueError"
SPARSE = "sparse descriptors are refused by NumPy, whose message does not name them"
IMAGES = "takes images uint8 [N, S, S, 3], not a matrix of floats"

OF_ENCODERS = dict.fromkeys(
    (
        "check_dict_unchanged",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_predict1d",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_pipeline_consistency",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    ),
    SHAPE,
) | {
    "check_estimator_sparse_array": SPARSE,
    "check_estimator_sparse_matrix": SPARSE,
    "check_estimator_sparse_tag": SPARSE,
    "check_estimators_empty_data_messages": ERROR,
    "check_estimators_nan_inf": ERROR,
    "check_fit1d": ERROR,
    "check_fit2d_1sample": ERROR,
    "check_complex_data": "the imaginary part is dropped with NumPy's warning",
    "check_n_features_in": "the number of values is checked against the codebook's",
    "check_n_features_in_after_fitting": "the number of values is checked against the codebook's",
}
OF_IMAGES = dict.fromkeys(
    (
        *OF_ENCODERS,
        "check_dont_overwrite_parameters",
        "check_estimators_fit_returns_self",
        "check_estimators_overwrite_params",
        "check_fit2d_1feature",
        "check_fit_check_is_fitted",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
    ),
    IMAGES,
)
ALWAYS = {
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformers_unfitted",
}
ENCODERS = [kind(codebook_size=2) for kind in (BagOfWords, Vlad, FisherVector)]


@pytest.mark.parametrize("estimator", [*ENCODERS, DenseSift()], ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_fail_only_where_listed(estimator: object) -> None:
    expected = OF_IMAGES if isinstance(estimator, DenseSift) else OF_ENCODERS
    outcomes = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {outcome["check_name"] for outcome in outcomes if outcome["status"] == "failed"}
    assert failed == set(expected)
    passed = {outcome["check_name"] for outcome in outcomes if outcome["status"] == "passed"}
    assert passed >= ALWAYS


@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
def test_an_encoder_must_be_fitted(encoder: Any) -> None:
    with pytest.raises(NotFittedError):
        encoder.transform(np.zeros((1, 3, 4), np.float32))
