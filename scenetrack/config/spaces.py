"""What a study searches of each target: ranges of its settings, beside their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Condition = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Dimension:
    """One setting that a trial draws.

    Attributes:
        name: of the dimension in the study.
        setting: the target's parameter that it sets; several dimensions of one list give its items
            in their order. Empty: it only decides which others are drawn.
        kind: int, float or str.
        low, high: of a number, both included.
        log: whether a number is drawn evenly in its logarithm.
        step: of a number; 0 for any, or for every whole one.
        choices: of a text, as the command line takes them.
        when: by another dimension or setting the values with which this one is drawn at all.
    """

    name: str
    setting: str
    kind: type = str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float = 0.0
    choices: tuple[str, ...] = ()
    when: Condition = field(default_factory=dict)

    @property
    def values(self) -> str:
        """As ``--space`` takes them."""
        if self.kind is str:
            return "|".join(self.choices)
        text = f"{self.low:.10g}:{self.high:.10g}"
        if self.log:
            return f"{text}:log"
        return f"{text}:{self.step:.10g}" if self.step else text


def whole(
    name: str,
    low: int,
    high: int,
    *,
    setting: str = "",
    step: int = 0,
    log: bool = False,
    when: Condition | None = None,
) -> Dimension:
    """A whole number, of the setting with its name where no other is given."""
    return Dimension(name, setting or name, int, low, high, log, step, when=when or {})


def real(name: str, low: float, high: float, *, log: bool = False) -> Dimension:
    """A number."""
    return Dimension(name, name, float, low, high, log)


def choice(name: str, *choices: str, when: Condition | None = None) -> Dimension:
    """One of some texts."""
    return Dimension(name, name, choices=choices, when=when or {})


def _widths(deepest: int, low: int, high: int) -> tuple[Dimension, ...]:
    """Hidden layers and the width of each."""
    depths = [str(depth) for depth in range(1, deepest + 1)]
    return (
        Dimension("layers", "", int, 1, deepest),
        *(
            whole(
                f"width_{place}",
                low,
                high,
                setting="hidden",
                log=True,
                when={"layers": tuple(depths[place - 1 :])} if place > 1 else None,
            )
            for place in range(1, deepest + 1)
        ),
    )


_MLP = (
    *_widths(3, 256, 2048),
    choice("activation", "relu", "gelu", "silu"),
    real("dropout", 0.0, 0.7),
    real("learning_rate", 1e-4, 5e-3, log=True),
    real("weight_decay", 1e-3, 0.5, log=True),
    real("label_smoothing", 0.0, 0.2),
    choice("batch_size", "32", "64", "128"),
    choice("image_size", "24", "32", "40"),
    choice("augmentation", "flip", "flip,shift", "flip,shift,zoom", "flip,shift,zoom,brightness"),
)

_OF_WORDS = {"encoder": ("bag_of_words",)}
# With what settings may have another value than their default at all.
CONDITIONS: Mapping[str, Condition] = dict.fromkeys(
    ("assignment", "tf_idf", "normalisation"), _OF_WORDS
)
_ENCODING = (
    choice("encoder", "bag_of_words", "vlad", "fisher_vector"),
    whole("words", 256, 2048, setting="codebook_size", log=True, when=_OF_WORDS),
    whole("centres", 16, 128, setting="codebook_size", log=True, when={"encoder": ("vlad",)}),
    whole(
        "components",
        32,
        256,
        setting="codebook_size",
        log=True,
        when={"encoder": ("fisher_vector",)},
    ),
    whole("pca", 32, 96, step=16),
    real("position", 0.0, 2.0),
    choice("pyramid", "1x1", "1x1,2x2", "1x1,3x1"),
    choice("assignment", "hard", "soft", when=_OF_WORDS),
)

SPACES: Mapping[str, tuple[Dimension, ...]] = {
    "train_mlp": _MLP,
    "layer_svm": (*_MLP, choice("kernels", "linear", "rbf")),
    "patch_bow": (
        *_widths(2, 256, 1024),
        real("dropout", 0.0, 0.6),
        real("learning_rate", 3e-4, 5e-3, log=True),
        real("weight_decay", 1e-3, 0.1, log=True),
        choice("image_size", "64", "96", "128"),
        choice("scales", "1.0", "1.0,0.67", "1.0,0.67,0.5"),
        whole("whitening", 80, 240, step=40),
        real("contrast_offset", 2.0, 40.0, log=True),
        *_ENCODING,
    ),
    "handcrafted": (
        choice("image_size", "192", "256"),
        whole("step", 6, 12, step=2),
        choice("bin_sizes", "4,6,8,10", "4,6,8,10,14", "4,6,8,10,14,20", "6,10,16"),
        choice("colour", "grey", "opponent"),
        real("smoothing", 0.0, 2.5),
        *_ENCODING,
    ),
}
