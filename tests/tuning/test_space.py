"""What a study searches: ranges given, settings that stay, draws and grids."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenetrack.config import TARGETS
from scenetrack.config.parsing import build_config
from scenetrack.errors import ConfigError
from scenetrack.tuning.baseline import baseline_values
from scenetrack.tuning.ranges import parsed_ranges
from scenetrack.tuning.space import grid_values, search_space


class Dice:
    """Draws as a study's random sampler does, evenly or evenly in the logarithm."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.drawn = {}

    def suggest_int(self, name, low, high, *, step, log):
        assert low <= high
        assert (high - low) % step == 0
        self.drawn[name] = low + step * int(self.rng.integers((high - low) // step + 1))
        return self.drawn[name]

    def suggest_float(self, name, low, high, *, step, log):
        assert (0 if log else -1) < low <= high
        drawn = np.exp(self.rng.uniform(*np.log([low, high]))) if log else None
        self.drawn[name] = float(self.rng.uniform(low, high) if drawn is None else drawn)
        return self.drawn[name]

    def suggest_categorical(self, name, choices):
        self.drawn[name] = choices[int(self.rng.integers(len(choices)))]
        return self.drawn[name]


def space_of(target, ranges="", **fixed):
    return search_space(TARGETS[target].config, ranges, fixed)


def dimension(space, name):
    (found,) = (drawn for drawn in space.dimensions if drawn.name == name)
    return found


def names(space):
    return {drawn.name for drawn in space.dimensions}


@pytest.mark.parametrize("target", TARGETS)
def test_every_draw_is_a_config_of_the_target(target):
    space = space_of(target)
    for seed in range(200):
        dice = Dice(seed)
        drawn = space.draw(dice)
        config = build_config(space.target, drawn, from_mlflow=False)
        assert {name: config.as_params()[name] for name in drawn} == drawn
        for drawn in space.dimensions:
            assert (drawn.name in dice.drawn) == all(
                str(dice.drawn[decider]) in allowed for decider, allowed in drawn.when.items()
            )


@pytest.mark.parametrize("target", TARGETS)
def test_a_preset_stays_but_for_what_is_drawn(target):
    space = space_of(target, preset="best")
    best = build_config(space.target, {"preset": "best"}, from_mlflow=False).as_params()
    for seed in range(20):
        drawn = space.draw(Dice(seed))
        used = build_config(space.target, drawn, from_mlflow=False).as_params()
        assert used == best | drawn


def test_widths_are_as_many_as_there_are_layers():
    space = space_of("train_mlp", "layers=2:3; width_1=256:256; width_2=300:300; width_3=400:400")
    seen = {space.draw(Dice(seed))["hidden"] for seed in range(20)}
    assert seen == {"256,300", "256,300,400"}


def test_ranges_of_every_form():
    space = space_of(
        "patch_bow",
        "dropout = 0.1:0.3; learning-rate=1e-5:1e-3:log; pca=32:100:16; "
        "encoder = vlad | fisher_vector; stride=2:6:2; weight_decay=0.1|0.2",
    )
    values = {drawn.name: drawn.values for drawn in space.dimensions}
    assert values["dropout"] == "0.1:0.3"
    assert values["learning_rate"] == "1e-05:0.001:log"
    # 32, 48, 64, 80, 96: the last step lies below 100.
    assert values["pca"] == "32:96:16"
    assert values["encoder"] == "vlad|fisher_vector"
    assert values["weight_decay"] == "0.1|0.2"
    assert values["stride"] == "2:6:2"
    assert dimension(space, "stride").kind is int


def test_a_step_between_numbers():
    drawn = dimension(space_of("train_mlp", "dropout=0.1:0.45:0.1"), "dropout")
    assert drawn.high == 0.4
    assert grid_values(drawn) == [0.1, 0.2, 0.3, 0.4]


def test_toml_says_the_same(tmp_path):
    file = tmp_path / "ranges.toml"
    file.write_text(
        'dropout = "0.1:0.3"\n'
        "learning-rate = {low = 1e-5, high = 1e-3, log = true}\n"
        "stride = {low = 2, high = 6, step = 2}\n"
        'encoder = ["vlad", "fisher_vector"]\n'
        "hidden = [[512], [1024, 512]]\n"
        "flip = [true, false]\n"
        "epochs = 7\n"
    )
    text = (
        "dropout=0.1:0.3; learning_rate=1e-5:1e-3:log; stride=2:6:2; encoder=vlad|fisher_vector; "
        "hidden=512|1024,512; flip=true|false; epochs=7"
    )
    assert space_of("patch_bow", str(file)) == space_of("patch_bow", text)
    assert parsed_ranges(f" {file} ")["flip"] == "true|false"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dropout = ", "a TOML file is required"),
        ("dropout = {low = 1}", "needs low and high"),
        ("dropout = {low = 0, high = 1, base = 2}", "Received: ['base', 'high', 'low']"),
        ("dropout = {low = 0, high = 1, log = true, step = 1}", "may have log or step"),
    ],
)
def test_toml_that_cannot_be_read(tmp_path, content, message):
    file = tmp_path / "ranges.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        space_of("train_mlp", str(file))
    assert message in str(error.value)
    with pytest.raises(ConfigError, match="a TOML file is required"):
        space_of("train_mlp", str(tmp_path / "none.toml"))


REFUSED = [
    ("epohcs=1:2", "train_mlp has no parameter 'epohcs'"),
    ("pyramid=1x1|2x2", "train_mlp has no parameter 'pyramid'"),
    ("seed=1|2", "seed is a setting of the study, not of its target"),
    ("data=demo|mit8", "data is a setting of the study, not of its target"),
    ("dropout", "NAME=VALUE is required"),
    ("dropout=", "NAME=VALUE is required"),
    ("dropout=0.5:0.1", "dropout needs LOW up to HIGH"),
    ("dropout=nan:nan", "dropout needs LOW up to HIGH"),
    ("dropout=0:2", "dropout must be at most 0.95. Received: 2"),
    ("dropout=-1:0.5", "dropout must be at least 0. Received: -1"),
    ("dropout=0|2", "dropout must be at most 0.95. Received: 2"),
    ("dropout=a:b", "dropout needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP in numbers"),
    ("dropout=0:0.5:log", "above 0 for log"),
    ("dropout=0:0.5:0", "a STEP above 0"),
    ("dropout=0:0.5:0.1:log", "dropout needs LOW:HIGH"),
    ("dropout=0:0.5:lin", "dropout needs LOW:HIGH"),
    ("dropout=0:", "dropout needs LOW:HIGH"),
    ("epochs=1.5:3", "epochs needs LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP in whole numbers"),
    ("activation=relu|swish", "activation must be one of: relu"),
    ("activation=relu|relu", "activation needs different values, none empty"),
    ("activation=relu|", "activation needs different values, none empty"),
    ("activation=relu:gelu", "activation must be one of"),
    ("layers=1:5", "layers must lie in 1 to 3"),
    ("layers=1|2", "layers needs a range LOW:HIGH"),
    ("width_1=256,512", "width_1 needs LOW:HIGH"),
    ("width_1=0:512", "hidden must be at least 1"),
    ("hidden=512|0", "hidden must be at least 1"),
]


@pytest.mark.parametrize(("ranges", "message"), REFUSED)
def test_ranges_that_cannot_be(ranges, message):
    with pytest.raises(ConfigError) as error:
        space_of("train_mlp", ranges)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(alphabet="dropoutlayers=:;|0123.,log ", max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_space_or_refused_in_one_line(text):
    refusal = ""
    try:
        space = space_of("train_mlp", text)
        build_config(space.target, space.draw(Dice(0)), from_mlflow=False)
    except ConfigError as error:
        refusal = str(error)
    assert "\n" not in refusal


def test_one_value_stays():
    space = space_of("patch_bow", "dropout=0.3; encoder=vlad; layers=2")
    assert space.fixed == {"dropout": "0.3", "encoder": "vlad"}
    # What only words have is not drawn any more, and neither is what only mixtures have.
    assert names(space) & {"dropout", "encoder", "words", "components", "assignment"} == set()
    assert {space.draw(Dice(seed))["hidden"].count(",") for seed in range(9)} == {1}


def test_flags_take_dimensions_out():
    space = space_of("patch_bow", hidden="512", encoder="fisher_vector")
    assert names(space) & {"layers", "width_1", "width_2", "encoder", "words", "centres"} == set()
    assert "components" in names(space)
    assert space.draw(Dice(0))["hidden"] == "512"


def test_a_flag_of_several_dimensions_takes_out_all_of_them():
    space = space_of("handcrafted", codebook_size="64")
    assert names(space) & {"words", "centres", "components"} == set()
    assert {space.draw(Dice(seed))["codebook_size"] for seed in range(9)} == {"64"}


def test_a_range_of_the_setting_replaces_the_dimensions_of_its_parts():
    space = space_of("patch_bow", "codebook_size=8:16; hidden=512|1024,512")
    own = {"words", "centres", "components", "layers", "width_1", "width_2"}
    assert names(space) & own == set()
    for seed in range(9):
        drawn = space.draw(Dice(seed))
        assert 8 <= int(drawn["codebook_size"]) <= 16
        assert drawn["hidden"] in ("512", "1024,512")


@pytest.mark.parametrize(
    ("ranges", "stays", "name"),
    [("", {"assignment": "soft"}, "assignment"), ("tf_idf=true", {}, "tf_idf")],
)
def test_a_setting_of_words_alone_stays_where_there_are_words(ranges, stays, name):
    space = space_of("handcrafted", ranges, **stays)
    for seed in range(30):
        drawn = space.draw(Dice(seed))
        assert (name in drawn) == (drawn["encoder"] == "bag_of_words")
        assert drawn.get(name) in (None, "soft", "true")
        build_config(space.target, drawn, from_mlflow=False)


def test_a_setting_of_words_is_refused_where_there_are_never_any():
    with pytest.raises(ConfigError, match="assignment is a setting of bag_of_words"):
        space_of("handcrafted", encoder="vlad", assignment="soft")


def test_choices_that_cannot_go_with_what_stays_are_left_out():
    # Four bins of 14 px and more do not fit into 48 px.
    space = space_of("handcrafted", image_size="48")
    assert dimension(space, "bin_sizes").choices == ("4,6,8,10",)


def test_choices_that_were_asked_for_are_refused_instead():
    with pytest.raises(ConfigError, match=r"no trial can have bin_sizes 4,20: a descriptor of 4"):
        space_of("handcrafted", "bin_sizes=4|4,20", image_size="48")
    with pytest.raises(ConfigError, match="no trial can have pyramid foo: a level of the pyr"):
        space_of("handcrafted", "pyramid=1x1|foo")


def test_a_space_without_a_possible_trial_is_refused():
    with pytest.raises(ConfigError, match="no trial of this space is possible: whitening keeps"):
        space_of("patch_bow", patch_size="4")
    possible = space_of("patch_bow", "whitening=12:48", patch_size="4")
    assert "whitening" in names(possible)


def test_settings_that_go_together_only_as_drawn():
    # The default bins do not fit into 32 px, those of the space do.
    space = space_of("handcrafted", "bin_sizes=4|4,6", image_size="32")
    assert dimension(space, "bin_sizes").choices == ("4", "4,6")
    assert baseline_values(space) == {}


def test_a_setting_cannot_stay_and_be_drawn():
    with pytest.raises(ConfigError, match=r"dropout is fixed at 0\.3, but the space gives dropout"):
        space_of("train_mlp", "dropout=0:0.5", dropout="0.3")
    with pytest.raises(ConfigError, match="hidden is fixed at 512, but the space gives width_1"):
        space_of("train_mlp", "width_1=8:16", hidden="512")


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ("layers=1:2; hidden=64|32,16", {}),
        ("layers=1:2; hidden=64", {}),
        ("layers=2", {"hidden": "64"}),
    ],
)
def test_a_number_of_layers_does_not_go_with_whole_ones(given, stays):
    with pytest.raises(ConfigError, match="no trial would use layers of the space: hidden is giv"):
        space_of("train_mlp", given, **stays)


def test_a_range_that_no_trial_would_use_is_refused():
    with pytest.raises(ConfigError, match="no trial would use width_3 of the space: it needs lay"):
        space_of("train_mlp", "layers=1:2; width_3=8:16")
    for spelling in ("width_1=8:16; hidden=64|32,16", "hidden=64|32,16; width_1=8:16"):
        with pytest.raises(ConfigError, match="no trial would use width_1 of the space: hidden is"):
            space_of("train_mlp", spelling)
    with pytest.raises(ConfigError, match="no trial would use words of the space: it needs encod"):
        space_of("handcrafted", "words=64:128", encoder="vlad")
    with pytest.raises(ConfigError, match="no trial would use tf_idf of the space: it needs enco"):
        space_of("handcrafted", "tf_idf=true|false; encoder=vlad")


def test_one_layer_leaves_nothing_to_decide():
    assert "layers" not in names(space_of("train_mlp", "layers=1; width_1=8:16"))


def test_flags_are_checked():
    with pytest.raises(ConfigError, match="train_mlp has no parameter 'epohcs'"):
        space_of("train_mlp", epohcs="5")
    with pytest.raises(ConfigError, match="--epochs must be a whole number"):
        space_of("train_mlp", epochs="x")
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        space_of("train_mlp", epochs="0")


def test_nothing_to_search():
    stays = {
        "hidden": "64",
        "activation": "relu",
        "dropout": "0",
        "learning_rate": "0.01",
        "weight_decay": "0",
        "label_smoothing": "0",
        "batch_size": "8",
        "image_size": "16",
        "augmentation": "flip",
    }
    with pytest.raises(ConfigError, match="at least one setting to search is required"):
        space_of("train_mlp", **stays)


SMALL = (
    "layers=1:2; width_1=8:16:8; width_2=4:4; activation=relu; dropout=0:0.5; learning_rate=0.01; "
    "weight_decay=0; label_smoothing=0; batch_size=8; image_size=16|24; augmentation=flip"
)


def test_a_grid_has_every_combination_once():
    space = space_of("train_mlp", SMALL)
    combinations = list(space.grid())
    # One layer, 2 widths; two layers, 2 widths and 1: each 3 dropouts and 2 sizes.
    assert len(combinations) == (2 + 2) * 3 * 2 == space.grid_size(1000)
    assert len({tuple(combination.items()) for combination in combinations}) == 24
    assert combinations[0] == {"layers": 1, "width_1": 8, "dropout": 0.0, "image_size": "16"}
    assert combinations[1] == {"layers": 1, "width_1": 8, "dropout": 0.0, "image_size": "24"}
    assert combinations[-1] == {
        "layers": 2,
        "width_1": 16,
        "width_2": 4,
        "dropout": 0.5,
        "image_size": "24",
    }


@pytest.mark.parametrize("target", TARGETS)
def test_a_grid_of_millions_begins_at_once(target):
    space = space_of(target)
    first = list(islice(space.grid(), 50))
    assert len({tuple(combination.items()) for combination in first}) == 50
    assert space.grid_size(50) == 50


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("dropout=0.1:0.5", [0.1, 0.3, 0.5]),
        ("learning_rate=1e-4:1e-2:log", [1e-4, 1e-3, 1e-2]),
        ("epochs=1:2", [1, 2]),
        ("epochs=1:100:log", [1, 10, 100]),
        ("epochs=2:9:3", [2, 5, 8]),
        ("epochs=1:4", [1, 2, 4]),
        ("dropout=0.1|0.2", ["0.1", "0.2"]),
    ],
)
def test_what_a_grid_tries(values, expected):
    name = values.partition("=")[0]
    assert grid_values(dimension(space_of("train_mlp", values), name)) == expected


@given(low=st.floats(1e-6, 0.9), part=st.floats(0, 1), log=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_grid_stays_in_its_range(low, part, log):
    high = low + part * (0.95 - low)
    drawn = dimension(space_of("train_mlp", f"dropout={low!r}:{high!r}{':log' * log}"), "dropout")
    assert all(drawn.low <= value <= drawn.high for value in grid_values(drawn))


def test_the_table_says_when_a_dimension_is_drawn():
    rows = {row[0]: row for row in space_of("patch_bow").table()}
    assert rows["layers"] == ("layers", "1:2", "(decides others)", "")
    assert rows["width_2"] == ("width_2", "256:1024:log", "hidden", "layers is 2")
    assert rows["words"][3] == "encoder is bag_of_words"
