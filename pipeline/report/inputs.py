"""What the report reads besides the summary: training metrics, predictions, scenes, teacher features. All of it is optional.

Which run or teacher a file belongs to is in its path (pipeline/study/paths.py); everything here says where a path does not fit.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core import registry
from pipeline.core.errors import DataError
from pipeline.core.finished import check_files, same_identity
from pipeline.core.parquet import read_parquet
from pipeline.core.provenance import file_digest, read_manifest
from pipeline.report.figures import Curves

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex

_SEED = re.compile(r"seed(\d+)")
METRICS_FILE = "metrics.jsonl"
ALIGNMENT = "alignment"
_NOT_DRAWN = {"step", "loss", "grad_norm", "learning_rate", "step_s", "question_tokens_per_s"}
"""Keys of a metrics line that say nothing comparable: the total loss holds the weighted alignment term of some runs only."""


@dataclass(frozen=True, slots=True)
class RunPath:
    """A run named by the path of its manifest."""

    dataset: str
    backbone: str
    teacher: str
    recipe: str
    seed: int
    manifest: Path

    def content(self) -> dict[str, Any]:
        """Read the manifest. Raise DataError when it is another run's."""
        made = read_manifest(self.manifest, made_by=f"snakemake --cores all {self.manifest}")
        names = ("dataset", "backbone", "teacher", "recipe", "seed")
        same_identity(
            made, {"run": {name: getattr(self, name) for name in names}}, self.manifest, "of the run that its path names"
        )
        return made


def run_path(manifest: Path) -> RunPath:
    """Parse ``.../{dataset}/{backbone}/{teacher}/{recipe}/seed{seed}/manifest.json``. Raise DataError for other paths."""
    parts = manifest.parts[-6:-1]
    seed = _SEED.fullmatch(parts[-1]) if len(parts) == 5 else None
    if seed is None:
        raise DataError(f"{manifest} does not name a run", allowed=".../dataset/backbone/teacher/recipe/seedN/manifest.json")
    dataset, backbone, teacher, recipe, _ = parts
    return RunPath(dataset, backbone, teacher, recipe, int(seed.group(1)), manifest)


def feature_paths(manifests: Iterable[Path]) -> dict[tuple[str, str], list[Path]]:
    """Group ``.../{dataset}/{teacher}/{shard}/manifest.json`` by (dataset, teacher)."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in manifests:
        if len(path.parts) < 4:
            raise DataError(f"{path} does not name a feature store", allowed=".../dataset/teacher/shard/manifest.json")
        found.setdefault((path.parts[-4], path.parts[-3]), []).append(path)
    return found


def training_curves(runs: Sequence[RunPath]) -> Curves:
    """Return task losses (one per benchmark trained on) and the alignment loss of runs that have an undamaged metrics.jsonl."""
    curves: dict[tuple[str, str, int], dict[str, tuple[list[float], list[float]]]] = {}
    for run in runs:
        run.content()
        lines = [line for line in _metrics(run.manifest.with_name(METRICS_FILE)) if _is_finite(line.get("step"))]
        keys = sorted({key for line in lines for key in line} - _NOT_DRAWN, key=lambda key: (key == ALIGNMENT, key))
        found: dict[str, tuple[list[float], list[float]]] = {}
        for key in keys:
            points = [(line["step"], line[key]) for line in lines if _is_finite(line.get(key))]
            if points:
                found[key] = [float(step) for step, _ in points], [float(value) for _, value in points]
        if found:
            curves[run.backbone, run.teacher, run.seed] = found
    return curves


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Read a run's metrics; return nothing, with a warning, when the file's digest is not the one in run.json.

    A curve is no reason to train again, so this is no error.
    """
    if not path.exists():
        return []
    written = _written_digest(path)
    if written not in (None, file_digest(path)):
        print(f"warning: {path} is damaged or was edited: its curves are left out", file=sys.stderr)
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def _written_digest(path: Path) -> str | None:
    """Return what run.json says of a file beside it; None where it says nothing (no rule depends on it: it may be missing)."""
    try:
        return str(json.loads(path.with_name("run.json").read_text(encoding="utf-8"))["files"][path.name])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Said:
    """A prediction of one run to one sample."""

    answer: str
    parsed: bool
    boxes: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One sample of a scene with every teacher's prediction. ``targets``: ground-truth boxes (grounding)."""

    benchmark: str
    task: str
    text: str
    expected: tuple[str, ...]
    targets: tuple[tuple[float, ...], ...]
    said: Mapping[str, Said]


@dataclass(frozen=True, slots=True)
class ExampleScene:
    """A scene with one question per benchmark, all of one backbone, recipe and seed."""

    dataset: str
    scene_id: str
    backbone: str
    recipe: str
    seed: int
    questions: tuple[Question, ...]


def read_predictions(path: Path) -> dict[str, tuple[str, Said]]:
    """Sample id -> (scene id, prediction) of a predictions file, in file order."""
    columns = ["sample_id", "scene_id", "answer", "parsed", "boxes"]
    made_by = f"snakemake --cores all -f {path.with_name('manifest.json')}"
    rows = read_parquet(path, made_by=made_by, own=False).select(columns).to_pylist()
    return {
        row["sample_id"]: (
            row["scene_id"],
            Said(row["answer"] or "", bool(row["parsed"]), tuple(tuple(box) for box in row["boxes"] or ())),
        )
        for row in rows
    }


def example_scenes(
    index: SceneIndex, runs: Sequence[RunPath], benchmarks: Mapping[str, Mapping[str, Any]], split: str, count: int = 3
) -> list[ExampleScene]:
    """Return scenes spread evenly over the split (not chosen by result), the first sample of every benchmark in each.

    ``runs``: prediction manifests; the first backbone, recipe and seed among them is shown, with all its teachers.
    ``benchmarks``: resolved members of config.yaml.
    """
    mine = [run for run in runs if run.dataset == index.dataset]
    records = index.split(split)
    if not mine or not records:
        return []
    first = mine[0]
    shown = [run for run in mine if (run.backbone, run.recipe, run.seed) == (first.backbone, first.recipe, first.seed)]
    for run in shown:
        check_files(run.manifest, run.content())
    wanted = [records[i].scene_id for i in sorted({int(p) for p in np.linspace(0, len(records) - 1, count)})]
    questions: dict[str, list[Question]] = {scene: [] for scene in wanted}
    for name, member in benchmarks.items():
        benchmark = registry.create("benchmarks", member)
        if benchmark.task == "representation":
            continue
        said = {run.teacher: read_predictions(run.manifest.with_name(f"{name}.parquet")) for run in shown}
        samples = benchmark.samples(index, split)
        for scene in wanted:
            sample = next((s for s in samples if s.scene_id == scene), None)
            if sample is not None:
                questions[scene].append(_question(name, sample, said, index))
    return [
        ExampleScene(index.dataset, scene, first.backbone, first.recipe, first.seed, tuple(found))
        for scene, found in questions.items()
        if found
    ]


def _question(name: str, sample: Any, said: Mapping[str, Mapping[str, tuple[str, Said]]], index: SceneIndex) -> Question:
    record = index.records[sample.scene_id]
    answers = {teacher: found[sample.sample_id][1] for teacher, found in said.items() if sample.sample_id in found}
    text = f"{sample.situation} {sample.text}".strip()
    if sample.task == "caption" and sample.target_ids:
        text = f"Describe the {record.object(sample.target_ids[0]).category}."
    targets = tuple(record.object(target).box for target in sample.target_ids) if sample.task == "grounding" else ()
    return Question(name, sample.task, text, tuple(sample.references), targets, answers)
