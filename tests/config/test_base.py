"""The settings: ranges, contradictions, presets and how they are written."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.config import (
    ActivationsConfig,
    HandcraftedConfig,
    LayerSvmConfig,
    PatchBowConfig,
    StageConfig,
    TrainMlpConfig,
    field_types,
    format_value,
)
from scenetrack.config.stages import STAGES
from scenetrack.config.tune import TUNE
from scenetrack.errors import ConfigError

CONFIGS = [entry.config for entry in (*STAGES, TUNE)]
FIELDS = [
    pytest.param(stage, item, id=f"{stage.stage} {item.name}")
    for stage in CONFIGS
    for item in dataclasses.fields(stage)
]


def values_of(item: dataclasses.Field[object], value: object) -> object:
    return (value,) if isinstance(item.default, tuple) else value


@pytest.mark.parametrize(("stage", "item"), FIELDS)
def test_each_range_is_kept(stage: type[StageConfig], item: dataclasses.Field[object]) -> None:
    low, high = item.metadata["low"], item.metadata["high"]
    if low is not None:
        with pytest.raises(ConfigError, match=f"{item.name} must be at least"):
            stage(**{item.name: values_of(item, low - 1)})
    if high is not None:
        with pytest.raises(ConfigError, match=f"{item.name} must be at most"):
            stage(**{item.name: values_of(item, high + 1)})
    if item.metadata["choices"]:
        with pytest.raises(ConfigError, match=f"{item.name} must be one of: .*Received: 'other'"):
            stage(**{item.name: values_of(item, "other")})


def test_whole_numbers_of_a_range_are_written_whole() -> None:
    with pytest.raises(
        ConfigError, match=r"^seed must be at most 2147483647\. Received: 2147483648"
    ):
        TrainMlpConfig(seed=2**31)
    with pytest.raises(ConfigError, match=r"learning_rate must be at least 1e-08\. Rec"):
        TrainMlpConfig(learning_rate=0)


@pytest.mark.parametrize(("stage", "item"), FIELDS)
def test_each_number_refuses_what_is_no_number(
    stage: type[StageConfig], item: dataclasses.Field[object]
) -> None:
    if isinstance(item.default, float):
        with pytest.raises(ConfigError, match=item.name):
            stage(**{item.name: float("nan")})


@pytest.mark.parametrize(("stage", "item"), FIELDS)
def test_each_default_has_its_declared_type(
    stage: type[StageConfig], item: dataclasses.Field[object]
) -> None:
    kind = field_types(stage)[item.name]
    if isinstance(item.default, tuple):
        assert get_origin(kind) is tuple
        assert {type(value) for value in item.default} <= {get_args(kind)[0]}
    else:
        assert type(item.default) is kind


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        (TrainMlpConfig, {"patience": 3, "validation": 0}, "early stopping needs validation"),
        (TrainMlpConfig, {"temperatures": "MLP=2"}, "no images are held out to fit them"),
        (TrainMlpConfig, {"temperatures": "MLP=0", "validation": 0}, "above 0. Received: MLP=0"),
        (TrainMlpConfig, {"temperatures": "MLP=-1", "validation": 0}, "above 0"),
        (TrainMlpConfig, {"temperatures": "MLP=nan", "validation": 0}, "above 0"),
        (TrainMlpConfig, {"temperatures": "MLP=inf", "validation": 0}, "above 0"),
        (TrainMlpConfig, {"temperatures": "MLP=hot", "validation": 0}, "must be a number"),
        (TrainMlpConfig, {"temperatures": "MLP", "validation": 0}, "NAME=VALUE is required"),
        (PatchBowConfig, {"patch_size": 129}, "129 is larger than image_size 128"),
        (PatchBowConfig, {"patch_size": 7, "whitening": 148}, "at most the 147 values of a patch"),
        (PatchBowConfig, {"kernels": ()}, "kernels must be auto, or some of"),
        (PatchBowConfig, {"kernels": ("auto", "rbf")}, r"kernels must be auto.*: auto,rbf"),
        (HandcraftedConfig, {"encoder": "vlad", "kernels": ("chi2",)}, "chi2 kernel takes no neg"),
        (HandcraftedConfig, {"encoder": "vlad", "tf_idf": True}, "tf_idf is a setting of bag_of"),
        (HandcraftedConfig, {"pyramid": ("2by2",)}, "ROWSxCOLUMNS of at most 64"),
        (HandcraftedConfig, {"pyramid": ("9x9",)}, "ROWSxCOLUMNS of at most 64"),
        (HandcraftedConfig, {"pyramid": ()}, "ROWSxCOLUMNS"),
        (HandcraftedConfig, {"pyramid": ("1x1", "1x1")}, "each level once"),
        (HandcraftedConfig, {"bin_sizes": ()}, "at least one size"),
        (HandcraftedConfig, {"bin_sizes": (65,)}, "65 px each, but image_size is 256"),
        (PatchBowConfig, {"scales": (1.0, 0.1)}, "larger than image_size 13, the smallest"),
        (PatchBowConfig, {"scales": (0.5, 0.501)}, "images of different sizes"),
        (PatchBowConfig, {"scales": ()}, "images of different sizes"),
        (PatchBowConfig, {"repeats": 2, "resume": "r"}, "one training is resumed at a time"),
        (LayerSvmConfig, {"kernels": ()}, "kernels needs at least one of"),
        (LayerSvmConfig, {"kernels": ("rbf", "rbf")}, "kernels must name each choice once"),
        (TrainMlpConfig, {"hidden": (65536, 65536)}, "at most 500,000,000 weights"),
        (PatchBowConfig, {"hidden": (65536, 65536)}, "at most 500,000,000 weights"),
        (TrainMlpConfig, {"hidden": (8,) * 400}, "at most 100 layers. Received: 400"),
        (PatchBowConfig, {"hidden": (8,) * 101}, "at most 100 layers. Received: 101"),
    ],
)
def test_contradictions(stage: type[StageConfig], values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**values)


def test_the_edge_of_a_contradiction_is_allowed() -> None:
    assert PatchBowConfig(image_size=16, patch_size=16, stride=16).patch_size == 16
    assert PatchBowConfig(patch_size=7, whitening=147).whitening == 147
    assert TrainMlpConfig(patience=3, validation=0.1).patience == 3


class TestPresets:
    @pytest.mark.parametrize(
        ("stage", "preset"), [(stage, name) for stage in CONFIGS for name in stage.presets]
    )
    def test_each_is_a_config_of_its_stage(self, stage: type[StageConfig], preset: str) -> None:
        config = stage.from_values({}, preset)
        chosen = {name: getattr(config, name) for name in stage.presets[preset]}
        assert chosen == dict(stage.presets[preset])
        assert config.as_params()["preset"] == preset

    def test_values_beat_the_preset(self) -> None:
        config = TrainMlpConfig.from_values({"epochs": 2}, "course")
        assert (config.epochs, config.hidden) == (2, (2048,))

    def test_course_is_the_courses_network(self) -> None:
        config = TrainMlpConfig.from_values({}, "course")
        assert (config.image_size, config.optimizer, config.epochs) == (32, "sgd", 50)
        assert (config.augmentation, config.activation) == (("flip",), "relu")
        assert (config.batch_norm, config.dropout, config.label_smoothing) == (False, 0.0, 0.0)

    def test_without_a_preset_the_defaults_stand(self) -> None:
        assert PatchBowConfig.from_values({}) == PatchBowConfig()

    def test_unknown_names(self) -> None:
        with pytest.raises(ConfigError, match="preset must be one of: course"):
            TrainMlpConfig.from_values({}, "curse")
        with pytest.raises(ConfigError, match="preset must be one of: none"):
            ActivationsConfig.from_values({}, "course")
        with pytest.raises(ConfigError, match="train_mlp has no parameter 'depth'"):
            TrainMlpConfig.from_values({"depth": 3})


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (True, "true"),
            (False, "false"),
            (3, "3"),
            (0.1, "0.1"),
            (1e-8, "1e-08"),
            ("gelu", "gelu"),
            ("", ""),
            ((1024, 512), "1024,512"),
            (("linear",), "linear"),
        ],
    )
    def test_by_hand(self, value: object, text: str) -> None:
        assert format_value(value) == text

    @given(st.floats(allow_nan=False))
    def test_no_digit_of_a_number_is_lost(self, value: float) -> None:
        assert float(format_value(value)) == value

    def test_params_are_all_fields(self) -> None:
        params = PatchBowConfig(flip=False).as_params()
        assert set(params) == {item.name for item in dataclasses.fields(PatchBowConfig)}
        assert (params["flip"], params["hidden"]) == ("false", "1024,512")
