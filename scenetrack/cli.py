"""The ``scenetrack`` command: one command per stage, flags from its config, errors as one line.

Nothing heavy is imported until a command really runs, so that help and refusals are immediate.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, get_args

import click

from scenetrack import __version__
from scenetrack.config import (
    DEVICES,
    ENTRY_POINTS,
    EntryPointConfig,
    StageConfig,
    field_types,
    format_value,
)
from scenetrack.errors import ConfigError, InputError, ScenetrackError, Terminated
from scenetrack.mlproject import POSITIONAL, flag_name

EXAMPLES = {
    "main": "scenetrack main --data mit8",
    "train_mlp": "scenetrack train_mlp --data mit8 --hidden 2048,1024 --dropout 0.5 --epochs 80",
    "activations": "scenetrack activations coast.jpg --layer hidden_1 --output figures",
    "layer_svm": "scenetrack layer_svm --data photos --kernels linear,rbf --folds 10",
    "patch_bow": "scenetrack patch_bow --data mit8 --patch-size 16 --codebook-size 2048 --seed 7",
    "export": "scenetrack export RUN --layer hidden_2 --dense --precision int8 -o layer.onnx",
    "bundle": "scenetrack bundle RUN -o scene.onnx",
    "predict": "scenetrack predict scene.onnx photos -o labels.csv --explain maps",
}

_KINDS = {int: "a whole number", float: "a number", str: "a text"}
_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
_TRUTH = {"true": True, "false": False}
_EMPTY_LIST = "none"


@dataclass
class _Voice:
    """How much the command says; set by flags before or after the command's name."""

    verbose: bool = False
    debug: bool = False


class _Commands(click.Group):
    """Lists its commands in the order of the story, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after the program's name; those of this process where None.

    Returns:
        0; 1 after a failure; 2 after a wrong value, file or flag; 130 after Ctrl-C; 143 after
        SIGTERM. What went wrong is one line on stderr; ``--debug`` adds the traceback.
    """
    voice = _Voice()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        root = command_line()
        with _sigterm_raises(), root.make_context("scenetrack", words, obj=voice) as context:
            root.invoke(context)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        message, code = _verdict(error)
        if voice.debug:
            traceback.print_exception(error)
        click.echo(" ".join(message.split()), err=True)
        return code
    return 0


def parse_value(name: str, text: str, kind: Any) -> Any:
    """A parameter's value from its text, the inverse of ``config.format_value``.

    Args:
        name: the parameter, for the message.
        text: ``12``, ``0.5``, ``true``, ``gelu``, ``1024,512``, or ``none`` for an empty list.
        kind: int, float, bool, str, ``tuple[int, ...]`` or ``tuple[str, ...]``.

    Raises:
        ConfigError: ``text`` is no value of that kind.
    """
    if get_args(kind):
        words = [] if text.strip() == _EMPTY_LIST else text.split(",")
        return tuple(parse_value(name, word.strip(), get_args(kind)[0]) for word in words)
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ConfigError(f"{flag_name(name)} must be true or false. Received: {text!r}")
        return _TRUTH[text.lower()]
    try:
        if kind is not str and ("_" in text or not text.isascii()):
            raise ValueError(text)  # Python reads 1_0 and other alphabets' digits as numbers
        return kind(text)
    except ValueError:
        raise ConfigError(f"{flag_name(name)} must be {_KINDS[kind]}. Received: {text!r}") from None


def build_config(
    config: type[EntryPointConfig],
    given: Mapping[str, str | tuple[str, ...]],
    *,
    from_mlflow: bool,
) -> EntryPointConfig:
    """The entry point's config from the texts given for its parameters.

    A tuple holds the words of a parameter that takes the rest of the command line.

    An empty text for a parameter that is no text means its default, because ``mlflow run`` has no
    other way to leave one out. With ``from_mlflow`` a value equal to its default counts as not
    given, because ``mlflow run`` passes every parameter and a preset could never apply.

    Raises:
        ConfigError: a value of the wrong kind, out of range, or in contradiction to another.
    """
    types = field_types(config)
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    values: dict[str, Any] = {
        name: parse_value(name, text, types[name]) if isinstance(text, str) else text
        for name, text in given.items()
        if text or types[name] is str
    }
    if from_mlflow:
        values = {name: value for name, value in values.items() if value != defaults[name]}
    preset: str = values.pop("preset", "")
    return config.from_values(values, preset)


def command_line() -> click.Group:
    """The whole command line: a command for each entry point, ``data``, ``bench`` and ``ui``."""
    root = _Commands(
        name="scenetrack",
        help=(
            "Scene and image classification: end-to-end networks against descriptors, encoders "
            "and SVMs, every run tracked in MLflow."
        ),
        epilog=_example("scenetrack patch_bow", "scenetrack ui"),
        params=_voice_options(),
        callback=_show_help_without_command,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    click.version_option(__version__, message="%(prog)s %(version)s")(root)
    for config in ENTRY_POINTS:
        root.add_command(_command(config))
    root.add_command(_data_group())
    root.add_command(_bench_group())
    root.add_command(_ui_command())
    return root


def _example(*lines: str) -> str:
    # The control character keeps click from filling the lines together.
    return "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in lines)])


def _show_help_without_command() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _voice_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_voice,
            is_eager=True,
            help="Say more about what is going on.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_set_voice,
            is_eager=True,
            help="Show the traceback of an error.",
        ),
    ]


def _set_voice(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        setattr(context.obj, str(option.name), True)


def _command(config: type[EntryPointConfig]) -> click.Command:
    types = field_types(config)
    params: list[click.Parameter] = []
    for item in dataclasses.fields(config):
        if item.name in POSITIONAL.get(config.stage, ()):
            count = -1 if get_args(types[item.name]) else 1
            params.append(click.Argument([item.name], required=False, nargs=count))
        else:
            params.append(_option(item, types[item.name]))
    return click.Command(
        name=config.stage,
        help=config.__doc__,
        epilog=_example(EXAMPLES[config.stage]),
        params=params + _voice_options(),
        callback=_callback(config),
    )


def _option(item: dataclasses.Field[Any], kind: Any) -> click.Option:
    # A switch may stand alone or take a value, as MLproject always gives one.
    value_if_alone: dict[str, Any] = {}
    if kind is bool:
        value_if_alone = {"is_flag": False, "flag_value": "true"}
    short = [item.metadata["short"]] if item.metadata["short"] else []
    return click.Option(
        [*short, flag_name(item.name), item.name],
        type=str,
        metavar=_metavar(item, kind),
        help=_help(item, kind),
        **value_if_alone,
    )


def _metavar(item: dataclasses.Field[Any], kind: Any) -> str:
    if kind is bool:
        return "[true|false]"
    choices = item.metadata["choices"]
    single = "|".join(choices) if choices else _METAVARS[(get_args(kind) or (kind,))[0]]
    return f"{single},..." if get_args(kind) else single


def _help(item: dataclasses.Field[Any], kind: Any) -> str:
    low, high = item.metadata["low"], item.metadata["high"]
    notes = []
    if low is not None and high is not None:
        notes.append(f"{low:.10g} to {high:.10g}")
    elif low is not None:
        notes.append(f"at least {low:.10g}")
    default = format_value(item.default)
    if default:
        notes.append(f"default: {default}")
    if get_args(kind):
        notes.append(f"{_EMPTY_LIST}: empty")
    return f"{item.metadata['help']} [{'; '.join(notes)}]" if notes else item.metadata["help"]


def _callback(config: type[EntryPointConfig]) -> Callable[..., None]:
    def run_entry_point(**texts: str | tuple[str, ...] | None) -> None:
        given = {name: text for name, text in texts.items() if text not in (None, ())}
        # mlflow run writes an empty list as one word.
        given = {name: () if text == (_EMPTY_LIST,) else text for name, text in given.items()}
        from_mlflow = "MLFLOW_RUN_ID" in os.environ
        settings = build_config(config, given, from_mlflow=from_mlflow)
        _prepare_process()
        from scenetrack import stages

        chosen = () if from_mlflow else [name for name, text in given.items() if text]
        if isinstance(settings, StageConfig):
            stages.run(settings, given=chosen)
        else:
            stages.deliver(settings)

    return run_entry_point


def _data_group() -> click.Group:
    group = click.Group(
        name="data",
        help="Look at a data set.",
        params=_voice_options(),
        callback=_show_help_without_command,
        invoke_without_command=True,
    )
    check = click.Command(
        name="check",
        help=(
            "Count the images of FOLDER (or demo, or mit8) by class and split and report sizes, "
            "unreadable files, duplicates, what is passed over, and whether it is the official "
            "MIT 8-scene split."
        ),
        epilog=_example("scenetrack data check photos"),
        params=[click.Argument(["folder"]), *_voice_options()],
        callback=_check_data,
    )
    group.add_command(check)
    return group


def _check_data(folder: str) -> None:
    _prepare_process()
    from scenetrack.data.catalog import find_data
    from scenetrack.data.check import check_folder, format_report

    report = check_folder(find_data(folder)[1])
    click.echo(format_report(report))
    if report.problems:
        raise click.exceptions.Exit(InputError.exit_code)


def _bench_group() -> click.Group:
    group = click.Group(
        name="bench",
        help="Time this machine.",
        params=_voice_options(),
        callback=_show_help_without_command,
        invoke_without_command=True,
    )
    vgg16 = click.Command(
        name="vgg16",
        help=(
            "Time VGG-16 forward and backward on images of 224 x 224 pixels with Keras on "
            "TensorFlow, and lay it beside published figures. 16 images need about 4 GB."
        ),
        epilog=_example("scenetrack bench vgg16 --batch 4 --device cpu"),
        params=[
            click.Option(
                ["--batch"],
                type=click.IntRange(1, 1024),
                default=16,
                show_default=True,
                help="Images in a batch.",
            ),
            click.Option(
                ["--device"],
                type=click.Choice(DEVICES),
                default="auto",
                show_default=True,
                help="Where TensorFlow runs; gpu fails without one.",
            ),
            click.Option(
                ["--repeats"],
                type=click.IntRange(1, 1000),
                help="Passes to take the median of.  [default: as fit into a minute]",
            ),
            *_voice_options(),
        ],
        callback=_bench_vgg16,
    )
    group.add_command(vgg16)
    return group


def _bench_vgg16(batch: int, device: str, repeats: int | None) -> None:
    _prepare_process()
    from scenetrack import stages
    from scenetrack.bench import bench_vgg16

    stages.import_keras()
    click.echo(bench_vgg16(batch, device, repeats))


def _ui_command() -> click.Command:
    return click.Command(
        name="ui",
        help="Open the MLflow UI on the store in use (MLFLOW_TRACKING_URI, else ./mlflow.db).",
        epilog=_example("scenetrack ui --port 5001"),
        params=[
            click.Option(["--host"], default="127.0.0.1", show_default=True, help="Address."),
            click.Option(
                ["--port"],
                type=click.IntRange(1, 65535),
                default=5000,
                show_default=True,
                help="Port.",
            ),
            *_voice_options(),
        ],
        callback=_open_ui,
    )


def _open_ui(host: str, port: int) -> None:
    _prepare_process()
    from scenetrack.tracking import open_ui

    open_ui(host, port)


def _prepare_process() -> None:
    """Set up logging and what mlflow reads when it is imported."""
    # mlflow looks for git and would warn on every start where there is none.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    voice: _Voice = click.get_current_context().obj
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("scenetrack")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if voice.verbose or voice.debug else logging.INFO)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into Terminated, so that open runs are closed on the way out."""

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, raise_terminated)
    except ValueError:  # Python allows handlers in the main thread only.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _verdict(error: BaseException) -> tuple[str, int]:
    """The line to print about an error and the exit code."""
    match error:
        case Terminated():
            return "terminated", 128 + signal.SIGTERM
        case KeyboardInterrupt():
            return "interrupted", 128 + signal.SIGINT
        case ScenetrackError():
            return f"error: {error}", error.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "scenetrack"
            return f"error: {error.format_message()} (see {command} --help)", error.exit_code
        case click.ClickException():
            return f"error: {error.format_message()}", error.exit_code
        case SystemExit():
            return f"error: exit {error.code}", 1
    kind = type(error).__name__
    return f"error: internal error: {kind}: {error} (run with --debug for the traceback)", 1
