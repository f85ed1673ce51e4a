"""What a study will cost: bytes of cached features, GPU hours, disk and memory; the formulas are in doctor/flops.py."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.backbones.base import Backbone, ModelSize
from pipeline.core.errors import PipelineError
from pipeline.core.provenance import read_manifest
from pipeline.doctor import flops
from pipeline.doctor.report import Cost, FeatureCost, RunCost, WeightRow
from pipeline.doctor.scenes import Examined, Extent
from pipeline.doctor.selection import Selection, has_foreign_weights, teacher_shape
from pipeline.doctor.weights import FLOAT32_BYTES, parameters
from pipeline.features.spec import StoreSpec, array_types, stored_grid
from pipeline.scenes.grid import TokenGrid
from pipeline.study import paths
from pipeline.study.recipe import Recipe
from pipeline.study.specs import Specs
from pipeline.teachers.base import Teacher

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}
STATES = 4
"""Numbers that full fine-tuning keeps per parameter, all in the weights' format: weight, gradient, AdamW's two moments."""

PACKED = ("features.compression lossless: bytes are counted before packing, an upper bound",)
NO_GPU = ("every model is small and made here: CPU cores are enough, no GPU is needed",)


def estimate(selection: Selection, datasets: Mapping[str, Examined], counts: Mapping[str, int | None], tflops: float) -> Cost:
    """Estimate the cost of the whole study at ``tflops`` TFLOP/s sustained on one GPU.

    ``counts``: parameters of the teachers with third-party weights (``teacher_parameters``).
    """
    study = selection.config.study
    runs = len(study["datasets"]) * len(study["backbones"]) * _runs_per_cell(selection)
    features = [
        _features(selection, dataset, teacher, datasets[dataset].extent, counts, tflops)
        for dataset in selection.study
        for teacher in selection.teachers.values()
        if teacher.has_features and not teacher.is_view
    ]
    backbones = [_runs(selection, backbone, datasets, tflops) for backbone in selection.backbones.values()]
    hours = [row.gpu_hours for row in features] + [run.gpu_hours for run in backbones]
    sizes = [row.bytes_to_come for row in features] + [run.bytes for run in backbones]
    packed = PACKED if any(row.packed for row in features) else ()
    return Cost(
        runs=runs,
        benchmarks=len(study["benchmarks"]),
        predictions=_predictions(selection, datasets),
        features=tuple(features),
        backbones=tuple(backbones),
        gpu_hours=sum(value for value in hours if value is not None),
        disk_bytes=sum(value for value in sizes if value is not None),
        unknown=tuple(_unknown(features, backbones)),
        load_bytes=max([0, *(FLOAT32_BYTES * (n or 0) for n in counts.values()), *(run.load_bytes or 0 for run in backbones)]),
        free_disk_bytes=_free_disk(),
        free_memory_bytes=_free_memory(),
        assumptions=(_assumptions(tflops) if any(value != 0 for value in hours) else NO_GPU) + packed,
    )


def _runs_per_cell(selection: Selection) -> int:
    study = selection.config.study
    return len(study["teachers"]) * len(study["recipes"]) * len(study["seeds"])


def _predictions(selection: Selection, datasets: Mapping[str, Examined]) -> int | None:
    """Return the answers of all runs to all benchmarks; None unless all sample counts are known on every dataset."""
    rows = [datasets[name].row for name in selection.study]
    if any(len(row.samples) < len(selection.evaluated) for row in rows):
        return None
    samples = sum(sum(row.samples.values()) for row in rows)
    return samples * len(selection.backbones) * _runs_per_cell(selection)


# ------------------------------------------------------------------ features


def teacher_parameters(selection: Selection, weights: Sequence[WeightRow]) -> dict[str, int | None]:
    """Return the parameters of every teacher with third-party weights, None where unknown."""
    faulty = {row.owner for row in weights if row.state == "faulty"}
    return {
        name: parameters(teacher.weight_files(), faulty=f"teachers.{name}" in faulty)
        for name, teacher in selection.teachers.items()
        if has_foreign_weights(teacher)
    }


def _features(
    selection: Selection,
    dataset: str,
    teacher: Teacher,
    extent: Extent | None,
    counts: Mapping[str, int | None],
    tflops: float,
) -> FeatureCost:
    stored, stored_views = _stored(selection, dataset, teacher.name)
    foreign = teacher.name in counts
    if extent is None:
        return FeatureCost(dataset, teacher.name, None, None, None, None, stored, None if foreign else 0.0)
    splits = selection.config.features.splits
    scenes = sum(extent.scenes.get(split, 0) for split in splits)
    views = sum(extent.views.get(split, 0) for split in splits)
    try:
        grid, dim = teacher_shape(teacher, extent.image_size)
        width = max(teacher.layers().values())
    except PipelineError:  # listed with the teachers or with the weights
        return FeatureCost(dataset, teacher.name, scenes, views, None, None, stored, None if foreign else 0.0)
    each = _bytes_per_view(selection, teacher, grid, dim)
    to_come = max(0, views - stored_views) * each
    hours: float | None = 0.0
    if foreign:
        count = counts[teacher.name]
        together, per_scene = teacher.set_dependent, views / max(1, scenes)
        needed = None if count is None else flops.teacher(count, width, per_scene, grid.count, together=together)
        hours = None if needed is None else flops.hours(scenes * needed, tflops)
    packed = selection.config.features.compression != "none"
    return FeatureCost(dataset, teacher.name, scenes, views, views * each, to_come, stored, hours, packed)


def _bytes_per_view(selection: Selection, teacher: Teacher, native: TokenGrid, dim: int) -> int:
    """Return the bytes of one view's tokens (and scales) as the store writes them; before packing, if it packs them."""
    features = selection.config.features
    grid, _ = stored_grid(features.model_dump(mode="json", include={"grid"}), native)
    layers = tuple(teacher.layers().items())
    spec = StoreSpec("", teacher.name, "", dim, grid.rows, grid.cols, grid.window, features.dtype, layers=layers)
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in array_types(spec, ()).values())


def _stored(selection: Selection, dataset: str, teacher: str) -> tuple[int, int]:
    """Return (bytes, views) of the finished shards."""
    total, views = 0, 0
    for shard in range(selection.config.features.shards):
        path = Path(paths.FEATURES.format(dataset=dataset, teacher=teacher, shard=paths.shard_name(shard)))
        try:
            counts = read_manifest(path, made_by="")["counts"]
            total, views = total + int(counts["bytes"]), views + int(counts["views"])
        except (PipelineError, KeyError, TypeError, ValueError):
            continue
    return total, views


# ---------------------------------------------------------------------- runs


def _runs(selection: Selection, backbone: Backbone, datasets: Mapping[str, Examined], tflops: float) -> RunCost:
    runs, finished = len(selection.study) * _runs_per_cell(selection), _finished(selection, backbone.name)
    if backbone.pretrain_dataset() is not None:
        return RunCost(backbone.name, runs, finished, None, 0.0, None, None, None)
    size = backbone.size()
    if size is None:
        return RunCost(backbone.name, runs, finished, None, None, None, None, None)
    per_number = DTYPE_BYTES.get(selection.config.backbones[backbone.name]["options"].get("dtype"), 4)
    total: float | None = 0.0
    for name in selection.study:
        needed = _flops_of_dataset(selection, size, datasets[name])
        total = None if total is None or needed is None else total + needed
    return RunCost(
        backbone=backbone.name,
        runs=runs,
        finished=finished,
        parameters=size.parameters,
        gpu_hours=None if total is None else flops.hours(total, tflops),
        bytes=(runs - finished) * size.parameters * per_number,
        load_bytes=size.parameters * per_number,
        memory_bytes=_training_numbers(selection, size) * per_number,
    )


def _finished(selection: Selection, backbone: str) -> int:
    """Count the backbone's runs that have a manifest."""
    specs = Specs(selection.config)
    found = [specs.cell_inputs(paths.RUN_MANIFEST, dataset, backbone) for dataset in selection.study]
    return sum(Path(path).is_file() for files in found for path in files)


def _training_numbers(selection: Selection, size: ModelSize) -> int:
    """Return the numbers that the study's largest training keeps besides activations: a frozen tower has its weights only."""
    recipes = [selection.config.recipes[name] for name in selection.config.study["recipes"]]
    tower = STATES if any(recipe.vision_learning_rate > 0 for recipe in recipes) else 1
    return STATES * size.language + tower * size.vision


def _flops_of_dataset(selection: Selection, size: ModelSize, dataset: Examined) -> float | None:
    """Return the FLOPs of training and answers of all recipes, teachers and seeds on one dataset."""
    config, extent = selection.config, dataset.extent
    if extent is None:
        return None
    total = 0.0
    for name in config.study["recipes"]:
        recipe = config.recipes[name]
        steps = _steps(recipe, dataset)
        if steps is None:
            return None
        step = flops.training_step(size, extent.views_per_scene("train"), recipe)
        total += steps * step + _answers(selection, size, dataset, extent)
    return total * len(config.study["teachers"]) * len(config.study["seeds"])


def _steps(recipe: Recipe, dataset: Examined) -> int | None:
    """Return optimizer steps; a recipe of epochs needs the number of training samples."""
    if recipe.steps is not None:
        return recipe.steps
    counts = [dataset.row.training.get(task) for task in recipe.train_on]
    known = [count for count in counts if count is not None]
    return recipe.total_steps(sum(known)) if len(known) == len(counts) else None


def _answers(selection: Selection, size: ModelSize, dataset: Examined, extent: Extent) -> float:
    """Return the work of answering: every scene's views once for all of its questions, then every question."""
    split = selection.config.evaluation.split
    questions = sum(dataset.row.samples.values())
    return flops.answering(size, extent.scenes.get(split, 0), extent.views_per_scene(split), questions)


# ----------------------------------------------------------------- resources


def _unknown(features: list[FeatureCost], backbones: list[RunCost]) -> list[str]:
    found = [f"features of {row.teacher} on {row.dataset}" for row in features if row.bytes is None or row.gpu_hours is None]
    return found + [f"runs of {row.backbone}" for row in backbones if row.gpu_hours is None]


def _assumptions(tflops: float) -> tuple[str, ...]:
    return (
        f"{tflops:g} TFLOP/s per GPU (--tflops; 125 is 40 % of an A100 in bf16)",
        "2 x parameters x tokens a pass, and attention; 3 passes to train, 4 with checkpointing, 1 where frozen",
        f"{flops.TEXT_TOKENS} tokens a question",
        "activations, checkpoints and prepared images come on top",
    )


def _free_disk() -> int:
    folder = Path("results").absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _free_memory() -> int | None:
    """Return MemAvailable of the kernel, None where there is no /proc/meminfo."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else None
