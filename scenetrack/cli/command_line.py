"""The ``scenetrack`` command: one command per entry point, flags from its config, one-line errors.

Nothing heavy is imported until a command really runs, so that help and errors are immediate.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, get_args

import click

from scenetrack import __version__
from scenetrack.cli.tools import tools
from scenetrack.cli.verbosity import (
    Verbosity,
    example,
    prepare_process,
    show_help_without_command,
    verbosity_options,
)
from scenetrack.config import ENTRY_POINTS, EntryPointConfig, TuneConfig, field_types, format_value
from scenetrack.config.entry_point import EntryPoint
from scenetrack.config.parsing import EMPTY_LIST, build_config, flag_name
from scenetrack.errors import ConfigError, ScenetrackError, Terminated, WriteError
from scenetrack.system.files import is_disk_error, printable
from scenetrack.system.interrupts import allow_signals, handle_signals
from scenetrack.system.terminal import escape_unprintable, visible

# A flag that ``tune`` does not know is a setting of its target.
_TAKES_ANY_FLAG = {"ignore_unknown_options": True, "allow_extra_args": True}
_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


class _Commands(click.Group):
    """A group that lists its commands in the order of definition, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after the program's name; those of this process where None.

    Returns:
        0; 1 after a failure; 2 after a wrong value, file or flag; 130 after Ctrl-C; 143 after
        SIGTERM. An error is one line on stderr; ``--debug`` adds the traceback.
    """
    escape_unprintable()
    verbosity = Verbosity()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        root = command_line()
        with (
            handle_signals(),
            allow_signals(),
            root.make_context("scenetrack", words, obj=verbosity) as context,
        ):
            root.invoke(context)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except BrokenPipeError:
        # The reader of our output has closed the pipe; Python would raise again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        message, code = _verdict(error)
        if verbosity.debug:
            traceback.print_exception(error)
        click.echo(visible(" ".join(message.split())), err=True)
        return code
    return 0


def command_line() -> click.Group:
    """Return the command line: one command for each entry point, and those of ``tools``."""
    root = _Commands(
        name="scenetrack",
        help=(
            "Scene and image classification: end-to-end networks against descriptors, encoders "
            "and SVMs, every run tracked in MLflow."
        ),
        epilog=example("scenetrack patch_bow", "scenetrack ui"),
        params=verbosity_options(),
        callback=show_help_without_command,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    click.version_option(__version__, message="%(prog)s %(version)s")(root)
    for entry in ENTRY_POINTS.values():
        root.add_command(_command(entry))
    for command in tools():
        root.add_command(command)
    return root


def _command(entry: EntryPoint) -> click.Command:
    config = entry.config
    types = field_types(config)
    params: list[click.Parameter] = []
    for item in dataclasses.fields(config):
        if item.name in entry.positional:
            count = -1 if get_args(types[item.name]) else 1
            params.append(click.Argument([item.name], required=False, nargs=count))
        else:
            params.append(_option(config, item, types[item.name]))
    return click.Command(
        name=entry.name,
        context_settings=_TAKES_ANY_FLAG if config is TuneConfig else {},
        help=config.__doc__,
        epilog=example(entry.example),
        params=params + verbosity_options(),
        callback=_callback(config),
    )


def _option(
    config: type[EntryPointConfig], item: dataclasses.Field[Any], kind: Any
) -> click.Option:
    # A switch may stand alone or take a value, as MLproject always gives one.
    value_if_alone: dict[str, Any] = {}
    if kind is bool:
        value_if_alone = {"is_flag": False, "flag_value": "true"}
    short = [item.metadata["short"]] if item.metadata["short"] else []
    return click.Option(
        [*short, flag_name(item.name), item.name],
        type=str,
        metavar=_metavar(item, kind),
        help=_help(config, item, kind),
        **value_if_alone,
    )


def _metavar(item: dataclasses.Field[Any], kind: Any) -> str:
    if kind is bool:
        return "[true|false]"
    choices = item.metadata["choices"]
    single = (
        "|".join(filter(None, choices)) if choices else _METAVARS[(get_args(kind) or (kind,))[0]]
    )
    return f"{single},..." if get_args(kind) else single


def _help(config: type[EntryPointConfig], item: dataclasses.Field[Any], kind: Any) -> str:
    low, high = item.metadata["low"], item.metadata["high"]
    notes = []
    if low is not None and high is not None:
        notes.append(f"{low:.10g} to {high:.10g}")
    elif low is not None:
        notes.append(f"at least {low:.10g}")
    default = format_value(item.default)
    if default:
        notes.append(f"default: {default}")
    if get_args(kind) and _may_be_empty(config, item.name):
        notes.append(f"{EMPTY_LIST}: empty")
    return f"{item.metadata['help']} [{'; '.join(notes)}]" if notes else item.metadata["help"]


def _may_be_empty(config: type[EntryPointConfig], name: str) -> bool:
    """Return whether the config accepts an empty list for the setting ``name``."""
    try:
        config(**{name: ()})
    except ConfigError:
        return False
    return True


def _callback(config: type[EntryPointConfig]) -> Callable[..., None]:
    def run_entry_point(**texts: str | tuple[str, ...] | None) -> None:
        given = {name: text for name, text in texts.items() if text not in (None, ())}
        if config is TuneConfig:
            given["fixed"] = _with_flags(str(given.get("fixed", "")))
        # mlflow run writes an empty list as one word.
        given = {name: () if text == (EMPTY_LIST,) else text for name, text in given.items()}
        from_mlflow = "MLFLOW_RUN_ID" in os.environ
        settings = build_config(config, given, from_mlflow=from_mlflow)
        prepare_process()
        from scenetrack.workflow import runner

        chosen = () if from_mlflow else [name for name, text in given.items() if text]
        runner.run(settings, given=chosen)

    return run_entry_point


def _with_flags(fixed: str) -> str:
    """Return the fixed settings of a study, with those given as flags of its target."""
    words = click.get_current_context().args
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise ConfigError(
            "flags of the target need a value each, such as --epochs 20. Received: "
            f"{' '.join(words)}"
        )
    pairs = zip(words[::2], words[1::2], strict=True)
    flags = [f"{flag.removeprefix('--').replace('-', '_')}={value}" for flag, value in pairs]
    return "; ".join(filter(None, [fixed, *flags]))


def _file_name(name: str | bytes | None) -> str:
    """Return the name of a file that could not be written, or where it may have been."""
    if name:
        return printable(os.fsdecode(name))
    return (
        f"standard output, or a file in {tempfile.gettempdir()}, the working folder or the cache,"
    )


def _verdict(error: BaseException) -> tuple[str, int]:
    """Return the line to print about an error, and the exit code."""
    match error:
        case Terminated():
            return "terminated", 128 + signal.SIGTERM
        case KeyboardInterrupt():
            return "interrupted", 128 + signal.SIGINT
        case ScenetrackError():  # before OSError, which some of them are as well
            return f"error: {error}", error.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "scenetrack"
            return f"error: {error.format_message()} (see {command} --help)", error.exit_code
        case click.ClickException():
            return f"error: {error.format_message()}", error.exit_code
        case OSError() if is_disk_error(error):
            name = error.filename2 or error.filename
            return f"error: {WriteError(_file_name(name), error)}", WriteError.exit_code
        case SystemExit():
            return f"error: exit {error.code}", 1
    kind = type(error).__name__
    return f"error: internal error: {kind}: {error} (run with --debug for the traceback)", 1
