"""The loader that models logged before version 0.3 name in their ``MLmodel`` file."""

from scenetrack.tracking.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
