"""The errors a user can meet: each says what was required, what came and what to do."""


class ScenetrackError(Exception):
    """Something failed while working (exit code 1 at the command line)."""

    exit_code = 1


class InputError(ScenetrackError):
    """A value, file or folder that the user gave cannot be used (exit code 2)."""

    exit_code = 2


class ConfigError(InputError):
    """A parameter is outside its range or contradicts another one."""


class DataError(InputError):
    """A data set or an image cannot be used."""


class ModelError(InputError):
    """A model, run or layer that was named does not exist or does not fit."""


class ExportError(ScenetrackError):
    """An exported graph disagrees with its source and was not written."""


class StoreError(ScenetrackError):
    """The MLflow store cannot be reached or refuses: the work itself did not fail."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; a KeyboardInterrupt so that no ``except Exception`` swallows it."""
