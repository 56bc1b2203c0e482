"""Exception classes; each message says what was required, what was received and what to do."""


class ScenetrackError(Exception):
    """Base class: the work failed (exit code 1 at the command line)."""

    exit_code = 1


class InputError(ScenetrackError):
    """A value, file or folder that the user gave cannot be used (exit code 2)."""

    exit_code = 2


class ConfigError(InputError):
    """A parameter is outside its range or contradicts another one."""


class DataError(InputError):
    """A data set or an image cannot be used."""


class ModelError(InputError):
    """A model, run or layer that the user named does not exist or does not match the rest."""


class ExportError(ScenetrackError):
    """An exported graph is invalid or its outputs differ from its source; it was not written."""


class StoreError(ScenetrackError):
    """The MLflow store cannot be reached or refuses a request; the work itself did not fail."""


class WriteError(ScenetrackError, OSError):
    """A file cannot be written: the disk is full, say. It is the system's error as well.

    Args:
        name: of the file, as it may be shown.
        cause: the error of the operating system, or of a library that wrote the file.
        advice: what to do.

    Attributes:
        errno, strerror: those of the cause.
    """

    def __init__(
        self, name: str, cause: OSError, advice: str = "free some room on its disk"
    ) -> None:
        reason = cause.strerror or " ".join(str(cause).split())[:200]
        super().__init__(f"{name} cannot be written ({reason}): {advice}, or choose another place")
        self.errno, self.strerror = cause.errno, reason

    def __str__(self) -> str:
        return str(self.args[0])


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. It is a KeyboardInterrupt so that no ``except Exception`` swallows it."""
