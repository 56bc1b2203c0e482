"""The kernels that an SVM may have; ``classifiers.kernels`` computes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A kernel.

    Attributes:
        name: as users see it.
        of_histograms: whether it compares histograms, whose values are never negative.
        has_gamma: whether it has a width, which cross-validation chooses beside C.
    """

    name: str
    of_histograms: bool = False
    has_gamma: bool = False


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("linear"),
        Kernel("rbf", has_gamma=True),
        Kernel("chi2", of_histograms=True, has_gamma=True),
        Kernel("intersection", of_histograms=True),
    )
}
