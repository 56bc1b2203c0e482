"""The command line: what it hands to a stage, how it refuses, and that it answers at once."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack import cli, config
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.entry_points import ENTRY_POINTS
from scenetrack.config.parsing import parse_value
from scenetrack.config.stages import STAGES
from scenetrack.config.tune import TUNE
from scenetrack.errors import ConfigError, DataError, ExportError, Terminated


@dataclass
class _Stages:
    """Stands for scenetrack.workflow.runner: keeps the configs that it is called with."""

    error: BaseException | None = None
    configs: list[config.StageConfig] = field(default_factory=list)
    given: Collection[str] = ()

    def run(self, settings: config.StageConfig, *, given: Collection[str]) -> None:
        self.configs.append(settings)
        self.given = given
        if self.error is not None:
            raise self.error

    @property
    def only(self) -> Any:
        (settings,) = self.configs
        return settings


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stages]:
    fake, module = _Stages(), ModuleType("scenetrack.workflow.runner")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scenetrack.workflow.runner", module)
    monkeypatch.setattr("scenetrack.workflow.runner", module, raising=False)
    logger = logging.getLogger("scenetrack")
    handlers, level = logger.handlers, logger.level
    yield fake
    logger.handlers, logger.level = handlers, level


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command prints when it refuses these arguments."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


class TestValues:
    def test_defaults_are_the_dataclass_defaults(self, stages: _Stages) -> None:
        assert cli.main(["patch_bow"]) == 0
        assert stages.only == config.PatchBowConfig()

    def test_names_of_the_flags_are_handed_on(
        self, stages: _Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["patch_bow", "--epochs", "", "--hidden", "1024,512", "--seed", "0"]
        assert cli.main(words) == 0
        assert set(stages.given) == {"hidden", "seed"}
        # mlflow run gives every parameter, so that none says what the user chose.
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        assert cli.main(words) == 0
        assert not stages.given

    def test_each_type(self, stages: _Stages) -> None:
        words = "--epochs 3 --dropout 0.25 --hidden 64,32 --kernels rbf --data photos --flip false"
        assert cli.main(["patch_bow", *words.split()]) == 0
        assert stages.only == config.PatchBowConfig(
            epochs=3, dropout=0.25, hidden=(64, 32), kernels=("rbf",), data="photos", flip=False
        )

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--skip-bad"], True),
            (["--skip-bad", "true"], True),
            (["--skip-bad", "False"], False),
            (["--skip-bad", "--seed", "3"], True),
            ([], False),
        ],
    )
    def test_switch_with_and_without_a_value(
        self, stages: _Stages, words: list[str], expected: bool
    ) -> None:
        assert cli.main(["main", *words]) == 0
        assert stages.only.skip_bad is expected

    def test_image_is_an_argument(self, stages: _Stages) -> None:
        assert cli.main(["activations", "a picture.jpg", "--layer", "hidden_2"]) == 0
        assert stages.only == config.ActivationsConfig(image="a picture.jpg", layer="hidden_2")

    def test_empty_text_means_the_default_unless_the_parameter_is_a_text(
        self, stages: _Stages
    ) -> None:
        empty = ["--epochs", "", "--hidden", "", "--flip", "", "--layer", ""]
        assert cli.main(["patch_bow", *empty]) == 0
        assert stages.only == config.PatchBowConfig(layer=())
        assert cli.main(["activations", "", "--layer", ""]) == 0
        assert stages.configs[-1] == config.ActivationsConfig(image="", layer="")

    def test_none_is_the_empty_list(self, stages: _Stages) -> None:
        assert cli.main(["train_mlp", "--augmentation", "none"]) == 0
        assert stages.only.augmentation == ()

    @given(st.lists(st.integers(1, 65536), min_size=1).map(tuple))
    def test_integer_lists_survive_being_written(self, value: tuple[int, ...]) -> None:
        text = config.format_value(value)
        assert parse_value("hidden", text, tuple[int, ...]) == value

    @given(st.floats(allow_nan=False))
    def test_numbers_survive_being_written(self, value: float) -> None:
        assert parse_value("dropout", config.format_value(value), float) == value


class TestPreset:
    def test_fills_what_is_not_given(self, stages: _Stages) -> None:
        assert cli.main(["train_mlp", "--preset", "course", "--epochs", "3"]) == 0
        assert stages.only.preset == "course"
        assert (stages.only.hidden, stages.only.epochs) == ((2048,), 3)

    def test_a_default_given_by_hand_beats_the_preset(self, stages: _Stages) -> None:
        assert cli.main(["train_mlp", "--preset", "course", "--hidden", "1024,512"]) == 0
        assert stages.only.hidden == (1024, 512)

    def test_under_mlflow_run_a_default_counts_as_not_given(
        self, stages: _Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        words = ["--preset", "course", "--hidden", "1024,512", "--epochs", "7"]
        assert cli.main(["train_mlp", *words]) == 0
        assert (stages.only.hidden, stages.only.epochs) == ((2048,), 7)

    def test_unknown(self, stages: _Stages, capsys: pytest.CaptureFixture[str]) -> None:
        assert "course" in refuse(capsys, "train_mlp", "--preset", "curse")
        assert stages.configs == []


@pytest.mark.usefixtures("stages")
class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("patch_bow --epochs many", "--epochs must be a whole number. Received: 'many'"),
            ("patch_bow --epochs 1.5", "'1.5'"),
            ("patch_bow --dropout much", "--dropout must be a number. Received: 'much'"),
            ("patch_bow --dropout nan", "dropout"),
            ("patch_bow --hidden 64,,32", "--hidden must be a whole number. Received: ''"),
            ("patch_bow --hidden 64,-1", "-1"),
            ("patch_bow --skip-bad perhaps", "--skip-bad must be true or false"),
            ("patch_bow --kernels rbf,cubic", "cubic"),
            ("patch_bow --patch-size 256", "256"),
            ("patch_bow --epoch 3", "--epochs"),
            ("patch_bow --epochs", "--epochs"),
            ("patch_bow surplus", "surplus"),
            ("patch_bov", "patch_bov"),
            ("data chek", "chek"),
            ("data check", "FOLDER"),
            ("ui --port 0", "--port"),
            ("--colour", "--colour"),
        ],
    )
    def test_wrong_words_are_one_line_and_exit_2(
        self, capsys: pytest.CaptureFixture[str], arguments: str, message: str
    ) -> None:
        assert message in refuse(capsys, *arguments.split())

    def test_the_stage_is_not_run(
        self, stages: _Stages, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refuse(capsys, "patch_bow", "--epochs", "0")
        assert stages.configs == []

    @pytest.mark.parametrize("text", ["x", "1_0", "\u0663", "1.5"])
    def test_parse_value_names_the_flag(self, text: str) -> None:
        with pytest.raises(ConfigError, match="--batch-size must be a whole number"):
            parse_value("batch_size", text, int)


class TestEndings:
    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (DataError("no images in photos"), 2, "error: no images in photos"),
            (ExportError("graphs differ"), 1, "error: graphs differ"),
            (DataError("two\nlines"), 2, "error: two lines"),
            (KeyboardInterrupt(), 130, "interrupted"),
            (Terminated(), 143, "terminated"),
            (
                OSError(errno.ENOSPC, "No space left on device", "notes.txt"),
                1,
                "error: notes.txt cannot be written (No space left on device): free some room on "
                "its disk, or choose another place",
            ),
            (
                ZeroDivisionError("division by zero"),
                1,
                "error: internal error: ZeroDivisionError: division by zero "
                "(run with --debug for the traceback)",
            ),
        ],
    )
    def test_error_is_one_line_with_its_code(
        self,
        stages: _Stages,
        capsys: pytest.CaptureFixture[str],
        error: BaseException,
        code: int,
        line: str,
    ) -> None:
        stages.error = error
        assert cli.main(["main"]) == code
        assert capsys.readouterr().err.splitlines() == [line]

    @pytest.mark.parametrize("words", [["--debug", "main"], ["main", "--debug"]])
    def test_debug_before_or_after_the_command_shows_the_traceback(
        self, stages: _Stages, capsys: pytest.CaptureFixture[str], words: list[str]
    ) -> None:
        stages.error = DataError("no images in photos")
        assert cli.main(words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-1] == "error: no images in photos"

    def test_sigterm_raises_terminated_inside_the_stage_only(
        self, stages: _Stages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr(
            sys.modules["scenetrack.workflow.runner"],
            "run",
            lambda settings, given: os.kill(os.getpid(), signal.SIGTERM),
        )
        assert cli.main(["main"]) == 143
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(("words", "level"), [([], logging.INFO), (["-v"], logging.DEBUG)])
    def test_messages_are_plain_lines_on_stderr(
        self,
        stages: _Stages,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        words: list[str],
        level: int,
    ) -> None:
        def run(settings: config.StageConfig, given: Collection[str]) -> None:
            logging.getLogger("scenetrack.data").log(level, "reusing the cache")
            logging.getLogger("scenetrack.data").log(level - 1, "unheard")

        monkeypatch.setattr(sys.modules["scenetrack.workflow.runner"], "run", run)
        assert cli.main(["main", *words]) == 0
        assert capsys.readouterr() == ("", "reusing the cache\n")


class TestOtherCommands:
    @pytest.mark.parametrize(("problems", "code"), [((), 0), (("no images in photos",), 2)])
    @pytest.mark.usefixtures("stages")
    def test_data_check_prints_the_report_and_refuses_bad_data(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        problems: tuple[str, ...],
        code: int,
    ) -> None:
        module = ModuleType("scenetrack.data.check")
        module.check_folder = lambda path: SimpleNamespace(  # type: ignore[attr-defined]
            path=path, problems=problems
        )
        module.format_report = lambda report: f"looked at {report.path}"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "scenetrack.data.check", module)
        assert cli.main(["data", "check", "photos"]) == code
        assert capsys.readouterr() == ("looked at photos\n", "")

    @pytest.mark.usefixtures("stages")
    def test_ui_hands_on_its_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = []
        module = ModuleType("scenetrack.tracking")
        module.open_ui = lambda host, port: opened.append((host, port))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "scenetrack.tracking", module)
        assert cli.main(["ui", "--port", "5001"]) == 0
        assert opened == [("127.0.0.1", 5001)]


def _flags_with(note: str, shown: str) -> set[str]:
    """The parameters whose part of a help text has ``note``."""
    parts = re.split(r"^  (?:-\w, )?--([\w-]+) ", shown, flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    noted = [name for name, text in texts.items() if note in " ".join(text.split())]
    return {name.replace("-", "_") for name in noted}


class TestHelp:
    def test_nothing_heavy_is_imported(self) -> None:
        heavy = "tensorflow keras mlflow sklearn numpy matplotlib scipy onnx onnxruntime PIL"
        code = (
            "import sys; from scenetrack.cli import main\n"
            "assert main(['--help']) == 0\n"
            "assert main(['patch_bow', '--help']) == 0\n"
            "assert main(['patch_bow', '--epochs', '0']) == 2\n"
            f"print('imported:', *(m for m in {heavy.split()!r} if m in sys.modules))"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[-1] == "imported:"

    @pytest.mark.parametrize("words", [["--help"], []])
    def test_lists_every_command(
        self, capsys: pytest.CaptureFixture[str], words: list[str]
    ) -> None:
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        for name in [*ENTRY_POINTS, "data", "ui"]:
            assert f"\n  {name} " in shown

    def test_none_is_told_of_lists_that_may_be_empty(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        may_be_empty = {"patch_bow": {"hidden", "layer"}, "handcrafted": set()}
        for command, allowed in may_be_empty.items():
            assert cli.main([command, "--help"]) == 0
            assert _flags_with("none: empty", capsys.readouterr().out) == allowed

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("scenetrack 0.")

    @pytest.mark.parametrize("entry", [*STAGES, TUNE], ids=lambda entry: entry.name)
    def test_each_command_tells_every_flag_and_an_example_that_works(
        self,
        stages: _Stages,
        capsys: pytest.CaptureFixture[str],
        entry: EntryPoint,
    ) -> None:
        example = entry.example
        assert cli.main([entry.name, "--help"]) == 0
        assert f"  {example}\n" in capsys.readouterr().out
        program, *words = example.split()
        assert program == "scenetrack"
        assert cli.main(words) == 0
        assert isinstance(stages.only, entry.config)
        assert stages.only != entry.config()
