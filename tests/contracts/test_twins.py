"""Everything fitted computes the same in Python and as a graph: one test for all of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pipelines import centres, scene_encoder, svm

from scenetrack.classifiers import FittedClassifier
from scenetrack.config import KERNELS
from scenetrack.config.encoder_registry import ENCODERS
from scenetrack.encoders import (
    BagOfWords,
    DescriptorPca,
    FisherVector,
    ImageEncoder,
    LocalEncoder,
    Vlad,
)
from scenetrack.graphs.builder import GraphBuilder
from scenetrack.graphs.runtime import OnnxModel

counts = pytest.mark.parametrize("count", [1, 7])


def run(add, **inputs: np.ndarray) -> list[np.ndarray]:
    """The tensors that ``add(builder, *names)`` returns, for arrays of any first length."""
    builder = GraphBuilder("twin")
    names = [
        builder.input(name, array.dtype, [None] * array.ndim) for name, array in inputs.items()
    ]
    kinds = {}
    for index, (tensor, dtype, rank) in enumerate(add(builder, *names)):
        kinds[builder.output(f"output_{index}", tensor, dtype, [None] * rank)] = index
    outputs = OnnxModel(builder.build({}).SerializeToString(), device="cpu").run(**inputs)
    return [outputs[name] for name in kinds]


def drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def of_words(words: np.ndarray, count: int) -> ImageEncoder:
    """Hard words of images with ``count`` descriptors."""
    bow = BagOfWords(len(words))
    bow.codebook_ = np.asarray(words, np.float32)
    return ImageEncoder(bow, ("1x1",), centres(count), None)


def transformed_in_graph(pca: DescriptorPca, rows: np.ndarray) -> np.ndarray:
    (twin,) = run(lambda b, x: [(pca.to_graph(b, x), np.float32, rows.ndim)], x=rows)
    return twin


def encoded_in_graph(encoder: ImageEncoder, local: np.ndarray) -> list[np.ndarray]:
    def add(builder: GraphBuilder, name: str) -> list[tuple[str, type, int]]:
        histograms, found = encoder.to_graph(builder, name)
        return [(histograms, np.float32, 2), (found, np.int64, 2)]

    return run(add, x=local)


@counts
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_pca_is_equal_to_the_last_bit(count: int, scale: float) -> None:
    pca = DescriptorPca(5).fit(scale * (drawn((200, 33)) + 2))
    rows = scale * (drawn((count, 4, 33), seed=1) + 2)
    np.testing.assert_array_equal(transformed_in_graph(pca, rows), pca.transform(rows))


def test_pca_of_rows_far_longer_than_at_fit_is_no_worse_than_float64() -> None:
    pca = DescriptorPca(5).fit(drawn((200, 33)))
    rows = 1e6 * drawn((50, 33), seed=1)
    twin = transformed_in_graph(pca, rows)
    np.testing.assert_allclose(twin, pca.transform(rows), rtol=1e-6, atol=1)


@counts
@pytest.mark.parametrize("pca", [0, 4])
def test_words_and_histograms_are_equal_to_the_last_bit(count: int, pca: int) -> None:
    encoder = scene_encoder(drawn((400, 9)), 53, words=32, pca=pca)
    local = drawn((count, 53, 9), seed=1)
    histograms, words = encoded_in_graph(encoder, local)
    np.testing.assert_array_equal(histograms, encoder.encode(local))
    expected = encoder.encoder.assign(encoder.project(local).reshape(-1, pca or 9))
    np.testing.assert_array_equal(words.ravel(), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2**-10, 1.0, 3.0, 2**12]),
    st.integers(1, 40),
    st.booleans(),
)
def test_ties_fall_to_the_first_word_in_both(
    seed: int, unit: float, width: int, doubled: bool
) -> None:
    """Small whole coordinates lie half-way between words all the time; so do equal words."""
    rng = np.random.default_rng(seed)
    codebook = unit * rng.integers(-2, 3, (24, width))
    if doubled:
        codebook[12:] = codebook[:12]
    encoder = of_words(codebook, 40)
    local = (unit * rng.integers(-2, 3, (3, 40, width)) / 2).astype(np.float32)
    rows = local.reshape(-1, width).astype(np.float64)
    distances = ((rows[:, None] - codebook) ** 2).sum(axis=2)
    histograms, words = encoded_in_graph(encoder, local)
    np.testing.assert_array_equal(words.ravel(), distances.argmin(axis=1))
    np.testing.assert_array_equal(histograms, encoder.encode(local))


def test_descriptors_a_rounding_error_apart_from_a_tie() -> None:
    """A float32 product would decide these by the order in which it adds up."""
    rng = np.random.default_rng(0)
    codebook = rng.standard_normal((2, 80)).astype(np.float32)
    middle = codebook.astype(np.float64).mean(axis=0)
    towards = codebook[0].astype(np.float64) - codebook[1]
    steps = np.linspace(-3e-7, 3e-7, 2001)[:, None]
    local = (middle + steps * towards).astype(np.float32)[None]
    encoder = of_words(codebook, 2001)
    (_, words) = encoded_in_graph(encoder, local)
    assert set(words.ravel()) == {0, 1}
    np.testing.assert_array_equal(words.ravel(), encoder.encoder.assign(local[0]))


def histograms_of(count: int, words: int, patches: int, seed: int) -> np.ndarray:
    """As images have them: many words not at all, some often."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(words, 0.3), count)
    return np.stack([rng.multinomial(patches, s) / patches for s in shares]).astype(np.float32)


def scored_in_graph(classifier: FittedClassifier, features: np.ndarray) -> np.ndarray:
    (twin,) = run(
        lambda b, x: [(classifier.to_graph(b, x).scores, np.float64, 2)], features=features
    )
    return twin


@counts
@pytest.mark.parametrize("c", [0.1, 100.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_of_histograms(kernel: str, c: float, count: int) -> None:
    labels = np.arange(60) % 4
    classifier = svm(histograms_of(60, 256, 841, 0), labels, kernel, preparation="square_root", c=c)
    features = histograms_of(count, 256, 841, 1)
    twin = scored_in_graph(classifier, features)
    assert twin.dtype == np.float64
    # The dual coefficients are at most C: a hundredth of what a bundle may differ by, at any C.
    np.testing.assert_allclose(twin, classifier.predict_scores(features), rtol=0, atol=1e-9)


@counts
@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_of_plain_descriptors(kernel: str, count: int) -> None:
    labels = np.arange(60) % 4
    values = np.abs(drawn((60, 40))) * 10 + labels[:, None]
    classifier = svm(values, labels, kernel, preparation="standardise")
    features = np.abs(drawn((count, 40), seed=1)) * 10
    expected = classifier.predict_scores(features)
    twin = scored_in_graph(classifier, features)
    np.testing.assert_allclose(twin, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@counts
@pytest.mark.parametrize("explicit_map", [False, True])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_scores_of_encodings_of_either_sign(kernel: str, explicit_map: bool, count: int) -> None:
    """Wider than many: as Fisher vectors are, of length 1 and as they are."""
    values, features = drawn((60, 300)), drawn((count, 300), seed=1)
    values, features = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (values, features)
    )
    labels = np.arange(60) % 4
    classifier = svm(values, labels, kernel, preparation="none", explicit_map=explicit_map)
    expected = classifier.predict_scores(features)
    twin = scored_in_graph(classifier, features)
    np.testing.assert_allclose(twin, expected, rtol=0, atol=1e-9)


@counts
@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_of_histograms_by_landmarks(kernel: str, count: int) -> None:
    labels, first = np.arange(60) % 4, histograms_of(60, 256, 841, 0)
    classifier = svm(first, labels, kernel, preparation="square_root", c=100.0, explicit_map=True)
    features = histograms_of(count, 256, 841, 1)
    expected = classifier.predict_scores(features)
    # Directions in which landmarks hardly differ get large coefficients of either sign.
    limit = 1e-12 * np.abs(classifier.dual).sum()
    np.testing.assert_allclose(scored_in_graph(classifier, features), expected, rtol=0, atol=limit)


def test_support_vectors_take_half_the_room() -> None:
    """The graph of an RBF machine is about as large as its support vectors in float32."""
    classifier = svm(
        histograms_of(60, 256, 841, 0), np.arange(60) % 4, "rbf", preparation="square_root"
    )
    builder = GraphBuilder("size")
    features = builder.input("x", np.float32, [None, 256])
    scores = classifier.to_graph(builder, features).scores
    builder.output("scores", scores, np.float64, [None, 4])
    model: onnx.ModelProto = builder.build({})
    assert model.ByteSize() < 1.2 * 4 * classifier.support.size


def overlapping(count: int) -> np.ndarray:
    """Regions bool [5, count]: everything, a half, drawn ones that leave some out, and none."""
    regions = np.random.default_rng(5).random((5, count)) < 0.4
    regions[0], regions[1, ::2], regions[4] = True, True, False
    return regions


def pooled_in_graph(encoder: LocalEncoder, rows: np.ndarray, regions: np.ndarray) -> np.ndarray:
    (twin,) = run(lambda b, x: [(encoder.pool_in_graph(b, x, regions), np.float32, 2)], x=rows)
    return twin


@pytest.mark.parametrize("which", [slice(0, 1), slice(0, 5), slice(2, 4), slice(4, 5)])
@pytest.mark.parametrize("count", [1, 53])
@pytest.mark.parametrize(
    "encoder", [Vlad(12), Vlad(12, 0, False, 1.0), Vlad(3, 0, True, 0.3), FisherVector(6)]
)
def test_sums_over_regions(encoder: LocalEncoder, count: int, which: slice) -> None:
    encoder.fit(drawn((400, 9)))
    rows, regions = drawn((count, 9), seed=1), overlapping(count)[which]
    twin, expected = pooled_in_graph(encoder, rows, regions), encoder.pool(rows, regions)
    assert twin.shape == expected.shape
    # VLAD's sums are exact; a Fisher vector's are float32, and their square roots amplify it.
    atol = 5e-5 if isinstance(encoder, FisherVector) else 1e-7
    np.testing.assert_allclose(twin, expected, rtol=0, atol=atol)


def test_fisher_vectors_of_a_plain_sky() -> None:
    """Descriptors that are all equal and far from others leave float32 no digits."""
    sample, rows, regions = drawn((900, 33)), drawn((2000, 33), seed=1), overlapping(2000)
    sample[::7] = rows[::3] = -100 * drawn((1, 33), seed=2)
    encoder = FisherVector(6).fit(sample)
    twin = pooled_in_graph(encoder, rows, regions)
    np.testing.assert_allclose(twin, encoder.pool(rows, regions), rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_residuals_of_ties_and_of_words_themselves(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    encoder = Vlad(8)
    encoder.words_ = BagOfWords.from_arrays({"codebook": rng.integers(-2, 3, (8, width)) * 3.0})
    rows = (rng.integers(-2, 3, (40, width)) * 1.5).astype(np.float32)
    twin = pooled_in_graph(encoder, rows, overlapping(40))
    expected = encoder.pool(rows, overlapping(40))
    np.testing.assert_array_equal(twin == 0, expected == 0)
    np.testing.assert_allclose(twin, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("encoder", [Vlad(16), FisherVector(16)])
def test_scores_of_encodings_over_a_pyramid(encoder: LocalEncoder) -> None:
    local = drawn((60, 64, 9)) + 0.3 * drawn((60, 1, 9), seed=1)
    encoder.fit(local.reshape(-1, 9))
    grid = (np.stack(np.divmod(np.arange(64), 8), axis=1) + 0.5).astype(np.float32) / 8
    scene = ImageEncoder(encoder, ("1x1", "2x2"), grid, DescriptorPca(7).fit(local.reshape(-1, 9)))
    encoder.fit(scene.project(local).reshape(-1, 7))
    classifier = svm(scene.encode(local), np.arange(60) % 4, "linear", preparation="none")

    def add(builder: GraphBuilder, name: str) -> list[tuple[str, type, int]]:
        features, _ = scene.to_graph(builder, name)
        return [(classifier.to_graph(builder, features).scores, np.float64, 2)]

    images = drawn((7, 64, 9), seed=2)
    (twin,) = run(add, x=images)
    expected = classifier.predict_scores(scene.encode(images))
    np.testing.assert_allclose(twin, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# Every encoder, and every way in which one of them works.
WAYS = {
    "hard": lambda: BagOfWords(12),
    "hard, tf-idf": lambda: BagOfWords(12, tf_idf=True),
    "hard, l2": lambda: BagOfWords(12, normalisation="l2"),
    "hard, tf-idf, hellinger": lambda: BagOfWords(12, tf_idf=True, normalisation="hellinger"),
    "soft": lambda: BagOfWords(12, assignment="soft"),
    "soft, tf-idf, l2": lambda: BagOfWords(12, assignment="soft", tf_idf=True, normalisation="l2"),
    "few soft words": lambda: BagOfWords(3, assignment="soft"),
    "vlad": lambda: Vlad(5),
    "fisher vector": lambda: FisherVector(4),
}
LEARN = {"levels": ("1x1",), "pca": 0, "square_root": False, "position_weight": 0.0}
SETTINGS = {
    "plain": {},
    "pyramid": {"levels": ("1x1", "2x2", "3x1")},
    "reduced": {"pca": 5},
    "everything": {"levels": ("2x1",), "pca": 5, "square_root": True, "position_weight": 0.7},
}


def as_bytes(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Descriptors as handcrafted ones come: uint8, few of them large."""
    return (30 * np.abs(drawn(shape, seed))).astype(np.uint8)


def test_every_encoder_has_a_way() -> None:
    assert {make().about.name for make in WAYS.values()} == set(ENCODERS)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_from_raw_descriptors_to_features(way: str, settings: str, dtype: type) -> None:
    values = as_bytes((500, 9), 0).astype(dtype)
    places = np.random.default_rng(0).random((500, 2), np.float32)
    learn = {**LEARN, **SETTINGS[settings], "positions": centres(53)}
    encoder = ImageEncoder.learn(values, places, WAYS[way](), **learn)
    encoder.learn_idf([as_bytes((6, 53, 9), 2)])
    local = as_bytes((4, 53, 9), 1).astype(dtype)
    expected = encoder.encode(local)
    (twin,) = run(lambda b, x: [(encoder.to_graph(b, x)[0], np.float32, 2)], x=local)
    if way.startswith("hard"):
        np.testing.assert_array_equal(twin, expected)
    # A little more than the rounding of float32; of a sum near 0 the signed root makes it larger.
    np.testing.assert_allclose(twin, expected, rtol=1e-5, atol=1e-5)
