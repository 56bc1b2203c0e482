"""Records of a run (params, metrics, figures, models) and the tracker interface that logs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeAlias


@dataclass(frozen=True)
class Param:
    """A setting of a run. MLflow keeps the first value that is logged under a name."""

    name: str
    value: object


@dataclass(frozen=True)
class Metric:
    """A metric of a run; ``step`` is the epoch for curves and 0 for final values."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Epoch:
    """The metrics of one training epoch.

    Attributes:
        number: number of the epoch, from 0; the step of its metrics.
        values: values by metric name, such as ``val/accuracy``.
        prefix: prefix of the metric names.
    """

    number: int
    values: Mapping[str, float]
    prefix: str = ""

    @property
    def metrics(self) -> list[Metric]:
        """The values as metrics at the epoch's step."""
        named = self.values.items()
        return [Metric(self.prefix + name, float(value), self.number) for name, value in named]


@dataclass(frozen=True)
class Tag:
    """A tag of a run, such as ``encoder`` = ``bag of words``."""

    name: str
    value: str


@dataclass(frozen=True)
class Figure:
    """A PNG image; ``name`` is its artifact path (``figures/confusion_matrix.png``)."""

    name: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; ``name`` ends in ``.json`` or ``.csv``."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Text:
    """A text artifact; ``name`` is its path (``model_summary.txt``)."""

    name: str
    text: str


@dataclass(frozen=True)
class Artifact:
    """A local file to copy into the folder ``folder`` of the run's artifacts."""

    path: Path
    folder: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input or output; -1 means any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A saved model file, ``.keras`` or ``.onnx`` by its suffix, to log as ``name``."""

    name: str
    path: Path
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetInput:
    """The data set that a run used; ``context`` is ``train`` or ``test``."""

    name: str
    digest: str
    source: str
    context: str
    images: int
    classes: Sequence[str]


@dataclass(frozen=True)
class MethodDescription:
    """The parts of a finished method, logged as tags of its run and read back from them.

    Attributes:
        name: name of the method, as tables and its run show it.
        descriptor: descriptor, such as ``dense sift`` or ``patch mlp hidden_2``; ``none`` for
            whole images.
        encoder: title of the encoder; ``none`` if the descriptor is the feature vector.
        kernel: kernel of the SVM; empty if the network itself classifies.
        aggregation: how the logits of an image's patches become those of the image; empty if the
            method has no patch logits.
    """

    name: str
    descriptor: str
    encoder: str = "none"
    kernel: str = ""
    aggregation: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the method's run."""
        tags = {
            "descriptor": self.descriptor,
            "encoder": self.encoder,
            "classifier": f"svm {self.kernel}" if self.kernel else "network",
            "kernel": self.kernel,
            "aggregation": self.aggregation,
        }
        return {name: value for name, value in tags.items() if value}

    @classmethod
    def from_tags(cls, name: str, tags: Mapping[str, str]) -> Self:
        """Return the description that a run's tags hold; also reads runs of earlier versions."""
        has_network = tags.get("classifier") == "network"
        return cls(
            name,
            tags.get("descriptor", "none"),
            tags.get("encoder", "none"),
            "" if has_network else tags.get("kernel", "unknown"),
            tags.get("aggregation", ""),
        )


Record: TypeAlias = (
    Param | Metric | Epoch | Tag | Figure | Table | Text | Artifact | Model | DatasetInput
)


class Tracker(Protocol):
    """Interface that stages use to log records and to open child runs."""

    run_id: str

    def log(self, *records: Record) -> None:
        """Log the records; metrics and params of one call are sent as one batch."""
        ...

    def child(
        self, name: str, tags: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Tracker]:
        """Open a child run; it ends FINISHED, or FAILED if the block raises."""
        ...


class MemoryTracker:
    """Tracker that keeps records in memory, for notebooks and tests without MLflow.

    Attributes:
        records: records of this run, in the order of their logging.
        children: trackers of the child runs by name.
    """

    def __init__(self, name: str = "memory") -> None:
        self.run_id = name
        self.records: list[Record] = []
        self.children: dict[str, MemoryTracker] = {}

    def log(self, *records: Record) -> None:
        self.records.extend(records)

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[MemoryTracker]:
        tracker = MemoryTracker(name)
        self.children[name] = tracker
        tracker.log(*(Tag(key, value) for key, value in (tags or {}).items()))
        yield tracker

    def metrics(self) -> dict[str, float]:
        """Return the last value of each metric by name."""
        return {metric.name: metric.value for metric in metrics_among(self.records)}


def metrics(values: Mapping[str, float], step: int = 0) -> Iterable[Metric]:
    """Return ``values`` as metrics at one step."""
    return [Metric(name, float(value), step) for name, value in values.items()]


def metrics_among(records: Iterable[Record]) -> list[Metric]:
    """Return the metrics among ``records`` in order, those of epochs included."""
    found: list[Metric] = []
    for record in records:
        if isinstance(record, Epoch):
            found += record.metrics
        elif isinstance(record, Metric):
            found.append(record)
    return found
