"""What a study selects, and what that needs in turn: sources of derived teachers, datasets that members learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.backbones.base import Backbone
from pipeline.benchmarks.base import Benchmark
from pipeline.core import registry
from pipeline.core.errors import CheckpointError, PipelineError, StoreError
from pipeline.datasets.base import Dataset
from pipeline.doctor.report import MemberRow, Need
from pipeline.features.extraction import one_grid
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.study.config import StudyConfig
from pipeline.teachers.base import Teacher


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances by name. ``roles``: why a dataset is needed, ``evaluated``/``trained``: benchmarks read in these splits."""

    config: StudyConfig
    teachers: dict[str, Teacher]
    backbones: dict[str, Backbone]
    datasets: dict[str, Dataset]
    roles: dict[str, str]
    evaluated: dict[str, Benchmark]
    trained: dict[str, Benchmark]

    @property
    def study(self) -> tuple[str, ...]:
        """Return the names of the study's own datasets."""
        return tuple(self.config.study["datasets"])

    def kind(self, section: str, name: str) -> str:
        """Return the kind of a section's member."""
        return str(getattr(self.config, section)[name]["kind"])


def select(config: StudyConfig) -> Selection:
    """Select everything that the study of ``config`` uses."""
    study = config.study
    teachers: dict[str, Teacher] = {}
    for name in study["teachers"]:
        teacher: Teacher = registry.create("teachers", config.teachers[name])
        teachers[name] = teacher
        source = teacher.source()
        if source is not None and source not in teachers:
            teachers[source] = registry.create("teachers", config.teachers[source])
    backbones: dict[str, Backbone] = {name: registry.create("backbones", config.backbones[name]) for name in study["backbones"]}
    roles = _roles(config, teachers, backbones)
    datasets: dict[str, Dataset] = {name: registry.create("datasets", config.datasets[name]) for name in roles}
    evaluated = _benchmarks(config, study["benchmarks"])
    trained = _benchmarks(config, {name for recipe in study["recipes"] for name in config.recipes[recipe].train_on})
    return Selection(config, teachers, backbones, datasets, roles, evaluated, trained)


def _roles(config: StudyConfig, teachers: dict[str, Teacher], backbones: dict[str, Backbone]) -> dict[str, str]:
    """Map each dataset to the reason it is needed, the study's own first."""
    learners: dict[str, list[str]] = {}
    datasets = {name: teacher.pretrain_dataset() for name, teacher in teachers.items()}
    datasets |= {name: backbone.pretrain_dataset() for name, backbone in backbones.items()}
    for name, dataset in datasets.items():
        if dataset is not None:
            learners.setdefault(dataset, []).append(name)
    texts = {dataset: f"pretraining of {', '.join(names)}" for dataset, names in learners.items()}
    return {name: "; ".join(filter(None, ["study", texts.get(name, "")])) for name in config.study["datasets"]} | {
        name: text for name, text in texts.items() if name not in config.study["datasets"]
    }


def _benchmarks(config: StudyConfig, names: set[str] | tuple[str, ...]) -> dict[str, Benchmark]:
    return {name: registry.create("benchmarks", config.benchmarks[name]) for name in config.benchmarks if name in names}


def teacher_rows(selection: Selection, sizes: set[tuple[int, int]]) -> tuple[tuple[MemberRow, ...], tuple[Need, ...]]:
    """Return every teacher with its licences and its grid for each image size (H,W) of the study, and images it cannot take."""
    needs: list[Need] = []
    rows = tuple(_teacher_row(selection, name, sizes, needs) for name in selection.teachers)
    return rows, tuple(needs)


def _teacher_row(selection: Selection, name: str, sizes: set[tuple[int, int]], needs: list[Need]) -> MemberRow:
    teacher = selection.teachers[name]
    source = selection.teachers[str(teacher.source())] if teacher.is_view else teacher
    licences = source.licences()
    row = MemberRow(
        name=name,
        kind=selection.kind("teachers", name),
        origin=_origin(teacher),
        code_licence=licences.code,
        weights_licence=licences.weights,
        commercial=licences.commercial,
        feature_layer=teacher.feature_layer(),
        source=teacher.source(),
    )
    if not teacher.has_features:
        return replace(row, has_features=False)
    grids: dict[str, tuple[int, int]] = {}
    dim: int | None = None
    for size in sorted(sizes):
        try:
            grid, dim = teacher_shape(source, size)
            grids[f"{size[0]}x{size[1]}"] = (grid.rows, grid.cols)
        except CheckpointError:  # a checkpoint that says the shape is missing or faulty: listed with the weights
            continue
        except PipelineError as error:
            if not teacher.is_view:
                needs.append(Need("teachers", f"{name}: {error.what}", error.where or "", error.fix or error.allowed or ""))
    return replace(row, grids=grids, dim=dim, order_dependent=source.order_dependent, set_dependent=source.set_dependent)


def teacher_shape(teacher: Teacher, size: tuple[int, int]) -> tuple[TokenGrid, int]:
    """Return grid and width for images (H,W). Raise PipelineError for unfit images or when the checkpoint is needed."""
    return teacher.grid(*size), teacher.dim


def grid_needs(selection: Selection, indices: Mapping[str, SceneIndex | None]) -> list[Need]:
    """Return teachers whose features of a prepared dataset fit no single store, because its images have several sizes."""
    features = selection.config.features
    needs = []
    for index in (found for name, found in indices.items() if found and name in selection.study):
        for teacher in selection.teachers.values():
            try:
                if teacher.has_features and not teacher.is_view:
                    one_grid(features.model_dump(mode="json", include={"grid"}), index, features.splits, teacher)
            except StoreError as error:
                needs.append(Need("teachers", f"{index.dataset}: {error.what}", error.where or "", error.fix or ""))
            except PipelineError:  # no scene, a missing checkpoint or an image it cannot take: listed with these
                continue
    return needs


def _origin(teacher: Teacher) -> str:
    if not teacher.has_features:
        return "no features: the baseline"
    if teacher.is_view:
        return f"features of {teacher.source()}"
    if teacher.trained_in_workflow:
        return f"trained in the workflow on {teacher.pretrain_dataset()}"
    if teacher.weight_files():
        return "released weights"
    return "weights that its own package brings" if has_foreign_weights(teacher) else "no weights"


def has_foreign_weights(teacher: Teacher) -> bool:
    """Return whether features come from third-party weights, in files named here or shipped by a package of the user's."""
    if not teacher.has_features or teacher.is_view or teacher.trained_in_workflow:
        return False
    return bool(teacher.weight_files()) or not teacher.licences().weights.startswith("none")


def backbone_rows(selection: Selection) -> tuple[MemberRow, ...]:
    """Return every backbone with its licences."""
    rows = []
    for name, backbone in selection.backbones.items():
        dataset, licences = backbone.pretrain_dataset(), backbone.licences()
        origin = "released weights" if dataset is None else f"built in the workflow, pretrained on {dataset}"
        kind = selection.kind("backbones", name)
        rows.append(MemberRow(name, kind, origin, licences.code, licences.weights, licences.commercial))
    return tuple(rows)
