"""Registry of SVM kernels; ``classifiers.kernels`` computes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """An SVM kernel.

    Attributes:
        name: name on the command line and in tables.
        of_histograms: whether the kernel takes histograms, without negative values, only.
        has_gamma: whether the kernel has a width gamma, chosen by cross-validation beside C.
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
