"""The ``scenetrack`` command: one command per entry point, flags from its config."""

from scenetrack.cli.command_line import command_line, main

__all__ = ["command_line", "main"]
