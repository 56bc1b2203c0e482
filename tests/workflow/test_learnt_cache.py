"""What is learnt once: keys that tell apart what differs, and entries that give back the same."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import pytest
from splits import split_of

from scenetrack.cache import Cache
from scenetrack.cache.archives import open_archive, store_archive
from scenetrack.config import HandcraftedConfig, LayerSvmConfig, PatchBowConfig, TrainMlpConfig
from scenetrack.data.augment import ImageBatches
from scenetrack.data.dataset import SceneDataset
from scenetrack.networks.registry import build_network
from scenetrack.records import Epoch, MemoryTracker, Model, Record, Tag, metrics_among
from scenetrack.workflow import network_training
from scenetrack.workflow.dataset import SceneImages
from scenetrack.workflow.learnt_cache import KEPT_NETWORKS, encoder_key, network_key
from scenetrack.workflow.network_training import TrainingData, train_network

KEY = {"network": "one"}
TINY = TrainMlpConfig(image_size=8, hidden=(6,), epochs=3, batch_size=8, patience=2, seed=5)
# What the weights do not depend on; every other setting has to tell networks apart.
ENCODING = {
    "encoder", "codebook_size", "pca", "square_root", "position", "pyramid", "assignment",
    "tf_idf", "normalisation", "kernels", "folds", "refit_encoder",
}  # fmt: skip
ELSEWHERE = {
    "data",
    "drop_duplicates",
    "skip_bad",
    "experiment",
    "repeats",
    "test",
    "preset",
    "resume",
} | {"temperatures"}
AFTERWARDS = {"device", "require_gpu", "model", "layer"}
NOT_OF_NETWORKS: dict[type[TrainMlpConfig | PatchBowConfig], set[str]] = {
    TrainMlpConfig: ELSEWHERE,
    LayerSvmConfig: ELSEWHERE | AFTERWARDS | {"kernels", "folds"},
    PatchBowConfig: ELSEWHERE | AFTERWARDS | ENCODING | {"aggregation", "form", "stride"},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "100MB")
    return tmp_path / "cache" / "arrays"


@pytest.fixture
def images() -> SceneImages:
    labels = np.arange(24, dtype=np.int64) % 2
    split = split_of([Path(f"{i}.png") for i in range(24)], labels)
    dataset = SceneDataset("two", Path("two"), ("dark", "light"), split, split, "0" * 16, ())
    pixels = np.random.default_rng(0).integers(0, 128, (24, 8, 8, 3), np.uint8)
    pixels += (100 * labels[:, None, None, None]).astype(np.uint8)
    return SceneImages(dataset, pixels, pixels, np.arange(16), np.arange(16, 24))


def changed(config: Any, name: str) -> Any:
    """The config with another value of a setting, whether or not that makes sense."""
    copy = object.__new__(type(config))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        object.__setattr__(copy, item.name, _other(value) if item.name == name else value)
    return copy


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, "x")
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, item.name) for kind in NOT_OF_NETWORKS for item in dataclasses.fields(kind)],
)
def test_what_reaches_a_network_tells_networks_apart(
    images: SceneImages, kind: type[TrainMlpConfig | PatchBowConfig], name: str
) -> None:
    plain = kind()
    same = network_key("mlp", images, plain) == network_key("mlp", images, changed(plain, name))
    assert same == (name in NOT_OF_NETWORKS[kind])


def test_the_grids_stride_reaches_a_network_that_learns_from_the_grid(images: SceneImages) -> None:
    plain, other = (PatchBowConfig(sampling="grid", stride=stride) for stride in (4, 8))
    assert network_key("mlp", images, plain) != network_key("mlp", images, other)


@pytest.mark.parametrize(
    "other",
    [
        lambda one: dataclasses.replace(one, fitted=one.fitted[:-1]),
        lambda one: dataclasses.replace(one, held_out=one.held_out[:-1]),
        lambda one: dataclasses.replace(one, fitted=np.arange(15), held_out=np.arange(15, 24)),
        lambda one: dataclasses.replace(
            one, dataset=dataclasses.replace(one.dataset, digest="1" * 16)
        ),
    ],
    ids=["fitted", "held out", "one moved", "other images"],
)
def test_other_images_tell_networks_apart(
    images: SceneImages, other: Callable[[SceneImages], SceneImages]
) -> None:
    assert network_key("mlp", images, TINY) != network_key("mlp", other(images), TINY)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr("keras.config.floatx", lambda: "float64"),
        lambda patch: patch.setattr("keras.config.epsilon", lambda: 1e-3),
        lambda patch: patch.setattr("scenetrack.workflow.learnt_cache.available_cpus", lambda: 77),
        lambda patch: patch.setenv("TF_ENABLE_ONEDNN_OPTS", "7"),
        lambda patch: patch.setenv("NVIDIA_TF32_OVERRIDE", "0"),
    ],
    ids=["floatx", "epsilon", "threads", "oneDNN", "TF32"],
)
def test_what_changes_digits_without_being_a_setting_tells_networks_apart(
    images: SceneImages,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    plain = network_key("mlp", images, TINY)
    change(monkeypatch)
    assert network_key("mlp", images, TINY) != plain


@pytest.mark.parametrize("name", sorted(ENCODING | {"seed", "experiment", "image_size", "test"}))
def test_what_reaches_an_encoder_tells_encoders_apart(name: str) -> None:
    plain = HandcraftedConfig()
    keys = [encoder_key("d", one, 100, None) for one in (plain, changed(plain, name))]
    # How images become descriptors is in the digest of these.
    learnt = ENCODING - {"kernels", "folds", "refit_encoder"} | {"seed"}
    assert (keys[0] != keys[1]) == (name in learnt)


def test_descriptors_sample_and_owners_tell_encoders_apart() -> None:
    config = HandcraftedConfig()
    keys = [
        encoder_key("d", config, 100, None),
        encoder_key("e", config, 100, None),
        encoder_key("d", config, 101, None),
        encoder_key("d", config, 100, np.array([1, 2])),
        encoder_key("d", config, 100, np.array([1, 3])),
    ]
    assert len({tuple(sorted(key.items())) for key in keys}) == len(keys)


def trained(
    images: SceneImages, tracker: MemoryTracker, config: TrainMlpConfig = TINY
) -> keras.Model:
    """The network after ``train_network``."""
    model = build_network(config, 2)
    labels = images.dataset.train.labels
    batches = ImageBatches(images.train, labels, images.fitted, ("flip",), 8, config.seed)
    held_out = images.held_out
    validation = images.train[held_out], labels[held_out]
    data = TrainingData(batches, validation, images, prefix="p/")
    train_network(model, data, config, tracker)
    return model


class KeepingTracker(MemoryTracker):
    """Keeps the content of the logged network, whose file goes after the training."""

    def log(self, *records: Record) -> None:
        super().log(*records)
        self.files = [r.path.read_bytes() for r in records if isinstance(r, Model)]


def test_a_second_training_is_the_first_ones_network(
    images: SceneImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = KeepingTracker("first"), KeepingTracker("again")
    expected = trained(images, first)
    with monkeypatch.context() as patched:
        patched.setattr(network_training, "fit", None)
        found = trained(images, again)
    assert Tag("network_of_run", "first") in again.records
    assert metrics_among(again.records) == metrics_among(first.records)
    for mine, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(mine, other)
    assert again.files == first.files != []
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
    anew = trained(images, MemoryTracker("anew"))
    for mine, other in zip(anew.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(mine, other)


def test_a_training_waits_for_the_same_one_elsewhere(
    images: SceneImages,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(images, MemoryTracker("elsewhere"))
    monkeypatch.setattr(network_training, "fit", None)
    (cache / KEPT_NETWORKS).rename(tmp_path / "not kept yet")
    (cache / KEPT_NETWORKS).mkdir()
    waiting, again = threading.Event(), MemoryTracker("again")

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("waiting for another process"):
                waiting.set()

    heard = Heard()
    thread = threading.Thread(target=trained, args=(images, again))
    logging.getLogger("scenetrack").addHandler(heard)
    try:
        with (
            caplog.at_level(logging.INFO, "scenetrack"),
            Cache().made_once(
                KEPT_NETWORKS, network_key(build_network(TINY, 2).name, images, TINY)
            ),
        ):
            thread.start()
            assert waiting.wait(20)
            for entry in (tmp_path / "not kept yet").iterdir():
                entry.rename(cache / KEPT_NETWORKS / entry.name)
        thread.join()
    finally:
        logging.getLogger("scenetrack").removeHandler(heard)
    assert Tag("network_of_run", "elsewhere") in again.records


def test_a_stopped_training_keeps_nothing(images: SceneImages) -> None:
    class Pruned(MemoryTracker):
        def log(self, *records: Record) -> None:
            super().log(*records)
            if any(isinstance(record, Epoch) and record.number == 1 for record in records):
                raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        trained(images, Pruned("pruned"))
    assert Cache().entries() == []
    whole = MemoryTracker("whole")
    trained(images, whole)
    assert not any(isinstance(one, Tag) and one.name == "network_of_run" for one in whole.records)


def test_a_damaged_network_is_trained_anew(
    images: SceneImages, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = trained(images, MemoryTracker("first"))
    (data,) = cache.glob("networks/*/data.npy")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    anew = MemoryTracker("anew")
    with caplog.at_level(logging.WARNING, "scenetrack"):
        found = trained(images, anew)
    assert "is damaged (the checksum of data.npy is wrong) and is computed again" in caplog.text
    assert not any(isinstance(one, Tag) and one.name == "network_of_run" for one in anew.records)
    for mine, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(mine, other)


class TestArchives:
    def test_arrays_come_back(self) -> None:
        arrays = {"text": np.array("words"), "empty": np.zeros((0, 3)), "bytes": np.arange(5)}
        store_archive("kind", KEY, arrays)
        found = open_archive("kind", KEY)
        assert found is not None
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)

    def test_another_key_or_kind_has_none(self) -> None:
        store_archive("kind", KEY, {"a": np.ones(2)})
        assert open_archive("kind", {"network": "two"}) is None
        assert open_archive("other", KEY) is None

    def test_a_bound_of_0_keeps_none(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
        store_archive("kind", KEY, {"a": np.ones(2)})
        assert open_archive("kind", KEY) is None
        assert not list(cache.glob("kind/*"))

    def test_a_full_disk_keeps_none_and_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        full = type("Usage", (), {"free": 0})
        monkeypatch.setattr("scenetrack.cache.arrays.shutil.disk_usage", lambda folder: full)
        store_archive("kind", KEY, {"a": np.ones(2)})
        assert "kind are not kept: the cache needs" in caplog.text

    def test_objects_are_refused(self) -> None:
        with pytest.raises(ValueError, match="Object arrays cannot be saved"):
            store_archive("kind", KEY, {"a": np.array([{}])})
