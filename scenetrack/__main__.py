"""``python -m scenetrack``: the ``scenetrack`` command, also where it is not installed."""

import sys

from scenetrack.cli import main

sys.exit(main())
