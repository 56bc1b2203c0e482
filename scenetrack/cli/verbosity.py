"""Verbosity of the commands, their logging, and the parts of help that all of them share."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import click

from scenetrack.system.terminal import VisibleFormatter


@dataclass
class Verbosity:
    """How much a command reports; set by flags before or after the command's name."""

    verbose: bool = False
    debug: bool = False


def example(*lines: str) -> str:
    """Return the end of a command's help: commands that a reader may copy."""
    # The control character keeps click from filling the lines together.
    return "\b\n" + "\n".join(["Example:", *(f"  {line}" for line in lines)])


def show_help_without_command() -> None:
    """Print the help of a group of commands when no command is named."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def verbosity_options() -> list[click.Parameter]:
    """Return the options ``--verbose`` and ``--debug``, which every command takes."""
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            is_eager=True,
            help="Report progress in more detail.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            is_eager=True,
            help="Show the traceback of an error.",
        ),
    ]


def _set_verbosity(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        setattr(context.obj, str(option.name), True)


def prepare_process() -> None:
    """Set up logging, and the environment that mlflow reads when it is imported."""
    # mlflow looks for git and would warn on every start where there is none.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    verbosity: Verbosity = click.get_current_context().obj
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter())
    logger = logging.getLogger("scenetrack")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbosity.verbose or verbosity.debug else logging.INFO)
