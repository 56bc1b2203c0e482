"""Loader shim: models logged earlier, whose ``MLmodel`` names this module, still load."""

from scenetrack.tracking.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
