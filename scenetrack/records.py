"""What stages report: plain records, interpreted by a tracker that the core does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeAlias


@dataclass(frozen=True)
class Param:
    """One setting of a run. MLflow keeps the first value logged under a name."""

    name: str
    value: object


@dataclass(frozen=True)
class Metric:
    """One number of a run; ``step`` is the epoch for curves and 0 for final figures."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch of a training.

    Attributes:
        number: of the epoch, from 0; the step of its metrics.
        values: figures by name, such as ``val/accuracy``.
        prefix: goes before the metric names.
    """

    number: int
    values: Mapping[str, float]
    prefix: str = ""

    @property
    def metrics(self) -> list[Metric]:
        """The figures as metrics, at the epoch's step."""
        named = self.values.items()
        return [Metric(self.prefix + name, float(value), self.number) for name, value in named]


@dataclass(frozen=True)
class Tag:
    """One label of a run, such as ``encoder`` = ``bag of words``."""

    name: str
    value: str


@dataclass(frozen=True)
class Figure:
    """A picture: ``name`` is its artifact path (``figures/confusion_matrix.png``)."""

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
    """A text artifact, ``name`` being its path (``model_summary.txt``)."""

    name: str
    text: str


@dataclass(frozen=True)
class Artifact:
    """A local file that the tracker copies into ``folder`` of the run's artifacts."""

    path: Path
    folder: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a model's input or output; -1 stands for any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A saved model file (``.keras`` or ``.onnx``, told apart by its suffix) to log as ``name``."""

    name: str
    path: Path
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetInput:
    """The data set a run used: ``context`` is ``train`` or ``test``."""

    name: str
    digest: str
    source: str
    context: str
    images: int
    classes: Sequence[str]


@dataclass(frozen=True)
class MethodDescription:
    """What a finished method is made of, logged once as tags of its run and read back from them.

    Attributes:
        name: of the method, as tables and its run show it.
        descriptor: such as ``dense sift`` or ``patch mlp hidden_2``; ``none``: whole images.
        encoder: title of the encoder; ``none``: the descriptor is the feature vector.
        kernel: of the SVM; empty for a network's own output.
        aggregation: how a network's patch logits become an image's; empty where it has none.
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
        """Read the description back from the tags of a method's run, also of earlier versions."""
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
    """What a stage needs of a tracker: log records, open child runs."""

    run_id: str

    def log(self, *records: Record) -> None:
        """Log the records; metrics and params of one call go out as one batch."""
        ...

    def child(
        self, name: str, tags: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Tracker]:
        """Open a child run; it ends FINISHED, or FAILED when the block raises."""
        ...


class MemoryTracker:
    """Keeps records in lists: for notebooks and tests that want no MLflow.

    ``records`` holds this run's records, ``children`` the child trackers by name.
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
        """The last value of each metric."""
        return {metric.name: metric.value for metric in metrics_among(self.records)}


def metrics(values: Mapping[str, float], step: int = 0) -> Iterable[Metric]:
    """``values`` as metric records at one step."""
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
