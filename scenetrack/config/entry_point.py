"""Declaration of an entry point, kept beside its config."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from scenetrack.config.base import EntryPointConfig
from scenetrack.config.dimensions import Dimension


class Methods(Enum):
    """Where the finished methods of an entry point's run are."""

    NONE = "none"
    ONE = "the run itself is the method"
    SEVERAL = "a child run for each method"
    OF_STAGES = "a child run for each stage, which holds methods"


@dataclass(frozen=True)
class EntryPoint:
    """An entry point of the command line, of MLproject and of Python.

    Its function is ``NAME`` in ``scenetrack.stages.NAME`` and takes the config, and a tracker where
    the config opens a run. It is imported by ``function`` only.

    Attributes:
        config: class of the settings, with name, defaults and presets.
        example: command at the end of the help.
        task: tag ``task`` of the runs; empty for an entry point that opens no run of a task.
        needs_keras: whether Keras is imported before the module of the function.
        methods: where the finished methods of the run are.
        space: dimensions of the search space; empty where ``tune`` is not supported.
        positional: settings that the command line takes without a flag.
    """

    config: type[EntryPointConfig]
    example: str
    task: str = ""
    needs_keras: bool = True
    methods: Methods = Methods.NONE
    space: tuple[Dimension, ...] = ()
    positional: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the command and of the stage."""
        return self.config.stage

    def function(self) -> Callable[..., Any]:
        """Import and return the function, and Keras before it where that is needed."""
        if self.needs_keras:
            importlib.import_module("scenetrack.networks.keras_import").import_keras()
        module = importlib.import_module(f"scenetrack.stages.{self.name}")
        function: Callable[..., Any] = getattr(module, self.name)
        return function
