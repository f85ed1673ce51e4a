"""What the doctor found, as plain values: printed as text (doctor/text.py) or as JSON, one field after the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Need:
    """Something the study needs and does not have. ``area``: weights, teachers, datasets, cost or environment.

    ``bytes``: published size of the download, where known. ``fault``: it is there but wrong, else it is missing.
    """

    area: str
    what: str
    where: str = ""
    fix: str = ""
    bytes: int | None = None
    fault: bool = False


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A teacher or backbone. ``origin``: where its weights come from; ``commercial``: its features or models may be sold.

    ``grids``: image size "HxW" in pixels -> token rows and columns; empty where no image size is known yet, and for
    members that see images another way. ``feature_layer``, ``dim`` and the dependences are a teacher's; ``dim`` is None
    where only its checkpoint says it. ``has_features`` is False for the teacher without features; ``source`` is the teacher
    whose features a control uses.
    """

    name: str
    kind: str
    origin: str
    code_licence: str
    weights_licence: str
    commercial: bool
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    dim: int | None = None
    feature_layer: str = ""
    order_dependent: bool = False
    set_dependent: bool = False
    has_features: bool = True
    source: str | None = None


CheckState = Literal["complete", "faulty", "not there", "not checked"]


@dataclass(frozen=True, slots=True)
class WeightRow:
    """A file or folder of released weights. ``bytes`` on disk when it is there, else its published size when known."""

    owner: str
    path: str
    what: str
    source: str
    bytes: int | None
    state: CheckState


DatasetState = Literal["prepared", "outdated", "damaged", "not prepared"]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset. ``state``: prepared, outdated (for other options or code), damaged or not prepared.

    ``scenes`` and ``views`` per split, None when only preparing tells (``about``: published averages, of which options and
    faults leave some out); ``annotations``: benchmark -> split -> there or not, for what the study reads (empty until it is
    prepared); ``samples``: benchmark -> evaluation samples, and ``training`` the training samples of the recipes' tasks:
    counted when it is prepared, published numbers before (where there are any). ``notes``: what preparing left out or found
    doubtful.
    """

    name: str
    kind: str
    licence: str
    role: str
    state: DatasetState
    scenes: dict[str, int] | None
    views: dict[str, int] | None
    image_size: tuple[int, int] | None
    about: bool
    annotations: dict[str, dict[str, bool]]
    samples: dict[str, int]
    training: dict[str, int]
    sources: tuple[WeightRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureCost:
    """Features of one teacher on one dataset. ``bytes`` of tokens in the cache, ``bytes_to_come`` of those that are not there
    yet, ``stored_bytes`` on disk of those that are. ``packed``: bytes are counted before lossless packing, an upper bound.

    ``gpu_hours`` 0 where the teacher has no released weights, None where its size is not known.
    """

    dataset: str
    teacher: str
    scenes: int | None
    views: int | None
    bytes: int | None
    bytes_to_come: int | None
    stored_bytes: int
    gpu_hours: float | None
    packed: bool = False


@dataclass(frozen=True, slots=True)
class RunCost:
    """All runs of one backbone. ``gpu_hours`` 0 for models built here, None where model or data are not known yet.

    ``finished`` runs are there already; ``bytes`` of the other fine-tuned models; ``load_bytes`` of the model in memory;
    ``memory_bytes``: weights, gradients and optimizer of one training.
    """

    backbone: str
    runs: int
    finished: int
    parameters: int | None
    gpu_hours: float | None
    bytes: int | None
    load_bytes: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Cost:
    """The whole study. Totals are of what is known; ``unknown`` says what is not. ``predictions``: answers of all runs.

    ``gpu_hours`` of everything, ``disk_bytes`` of what is not stored yet, ``load_bytes`` of the largest released model.
    """

    runs: int
    benchmarks: int
    predictions: int | None
    features: tuple[FeatureCost, ...]
    backbones: tuple[RunCost, ...]
    gpu_hours: float
    disk_bytes: int
    unknown: tuple[str, ...]
    load_bytes: int
    free_disk_bytes: int
    free_memory_bytes: int | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    """One part of the environment; ``state`` ok, note, differs (usable, but not the tested version) or missing."""

    name: str
    state: Literal["ok", "note", "differs", "missing"]
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, with ``missing`` last: empty exactly when the study can start."""

    config: tuple[str, ...]
    teachers: tuple[MemberRow, ...]
    backbones: tuple[MemberRow, ...]
    weights: tuple[WeightRow, ...]
    datasets: tuple[DatasetRow, ...]
    cost: Cost
    environment: tuple[EnvironmentRow, ...]
    missing: tuple[Need, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values, and ``ready``."""
        return {"ready": not self.missing} | asdict(self)
