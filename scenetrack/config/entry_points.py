"""Registry of all entry points, in the order of the help."""

from __future__ import annotations

from scenetrack.config.bundle import BUNDLE
from scenetrack.config.compare import COMPARE
from scenetrack.config.export import EXPORT
from scenetrack.config.predict import PREDICT
from scenetrack.config.stages import STAGES
from scenetrack.config.tune import TUNE

ENTRY_POINTS = {entry.name: entry for entry in (*STAGES, TUNE, COMPARE, EXPORT, BUNDLE, PREDICT)}
