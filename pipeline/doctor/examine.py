"""The whole examination: teachers, weights, datasets, cost and environment of one configured study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.doctor.cost import estimate, teacher_parameters
from pipeline.doctor.environment import Probes, Wanted, examine_environment
from pipeline.doctor.report import Cost, Need, Report
from pipeline.doctor.scenes import Examined, examine_dataset
from pipeline.doctor.selection import Selection, backbone_rows, grid_needs, has_foreign_weights, select, teacher_rows
from pipeline.doctor.weights import weight_rows
from pipeline.study.config import StudyConfig


def examine(config: StudyConfig, files: Sequence[Path], tflops: float) -> Report:
    """Look at everything the study needs. Faults are listed in ``missing``, not raised."""
    probes = Probes()
    selection = select(config)
    datasets = {name: examine_dataset(selection, name) for name in selection.datasets}
    weights, weight_needs = weight_rows(selection)
    cost = estimate(selection, datasets, teacher_parameters(selection, weights), tflops)
    rows, environment_needs = examine_environment(_wanted(selection, datasets), probes)
    sizes = {found.extent.image_size for name, found in datasets.items() if found.extent and name in selection.study}
    teachers, teacher_needs = teacher_rows(selection, sizes)
    dataset_needs = [need for found in datasets.values() for need in found.needs]
    grids = grid_needs(selection, {name: found.index for name, found in datasets.items()})
    needs = [*weight_needs, *teacher_needs, *dataset_needs, *grids, *_space(cost), *environment_needs]
    return Report(
        config=tuple(str(file) for file in files),
        teachers=teachers,
        backbones=backbone_rows(selection),
        weights=weights,
        datasets=tuple(found.row for found in datasets.values()),
        cost=cost,
        environment=rows,
        missing=tuple(needs),
    )


def _wanted(selection: Selection, datasets: dict[str, Examined]) -> Wanted:
    return Wanted(
        java=any(_wants_java(selection.config.benchmarks[name]["options"]) for name in selection.evaluated),
        open3d=any(selection.datasets[n].renders and found.row.state != "prepared" for n, found in datasets.items()),
        gpu=any(has_foreign_weights(teacher) for teacher in selection.teachers.values())
        or any(backbone.weight_files() for backbone in selection.backbones.values()),
    )


def _wants_java(options: Mapping[str, Any]) -> bool:
    return bool(options.get("meteor") or options.get("ptb"))


def _space(cost: Cost) -> list[Need]:
    """Return the disks known to be too small."""
    if cost.disk_bytes <= cost.free_disk_bytes:
        return []
    short = (cost.disk_bytes - cost.free_disk_bytes) / 1e9
    fix = "free space, or link results elsewhere"
    return [Need("cost", f"{short:,.1f} GB of disk for features and models are not free", "results", fix)]
