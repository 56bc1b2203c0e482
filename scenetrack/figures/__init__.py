"""Pictures of results as PNG: drawn on matplotlib figures of their own, never on global state."""

from scenetrack.figures.activation_maps import draw_activation_maps
from scenetrack.figures.calibration import draw_reliability_diagram
from scenetrack.figures.confusion_matrix import draw_confusion_matrix
from scenetrack.figures.learning_curves import draw_learning_curves
from scenetrack.figures.method_comparison import draw_method_comparison
from scenetrack.figures.mistakes import draw_mistakes
from scenetrack.figures.montage import draw_montage
from scenetrack.figures.network_topology import LayerRow, draw_topology
from scenetrack.figures.seed_spread import draw_seed_spread

__all__ = [
    "LayerRow",
    "draw_activation_maps",
    "draw_confusion_matrix",
    "draw_learning_curves",
    "draw_method_comparison",
    "draw_mistakes",
    "draw_montage",
    "draw_reliability_diagram",
    "draw_seed_spread",
    "draw_topology",
]
