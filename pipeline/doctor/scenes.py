"""Datasets: prepared or not, how many scenes and views, and whether the benchmarks' annotations are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from pipeline.benchmarks.base import Benchmark, RepresentationBenchmark
from pipeline.core.errors import PipelineError
from pipeline.datasets.base import SourceFile
from pipeline.doctor.report import DatasetRow, DatasetState, Need, WeightRow
from pipeline.doctor.selection import Selection
from pipeline.doctor.weights import size_on_disk
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Sample
from pipeline.study import paths
from pipeline.study.specs import Specs


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of what there is, or will be (``about``: on average): scenes and views per split, largest colour image (H,W)."""

    scenes: dict[str, int]
    views: dict[str, int]
    image_size: tuple[int, int]
    about: bool = False

    def views_per_scene(self, split: str) -> float:
        """Return the mean views of the split's scenes; of all scenes where the split has none."""
        scenes, views = self.scenes.get(split, 0), self.views.get(split, 0)
        if not scenes:
            scenes, views = sum(self.scenes.values()), sum(self.views.values())
        return views / max(1, scenes)


@dataclass(frozen=True, slots=True)
class Examined:
    """A dataset's row, what it lacks, and what later estimates need: its extent, and its index when it is prepared."""

    row: DatasetRow
    needs: tuple[Need, ...]
    extent: Extent | None
    index: SceneIndex | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples by benchmark: those that are ``evaluated``, and those ``trained`` on."""

    evaluated: dict[str, int]
    trained: dict[str, int]


def examine_dataset(selection: Selection, name: str) -> Examined:
    """Look at one dataset of the selection."""
    needs: list[Need] = []
    index: SceneIndex | None = None
    extent: Extent | None = None
    state: DatasetState = "not prepared"
    manifest = Path(paths.SCENES.format(dataset=name))
    if manifest.is_file():
        try:
            index = SceneIndex(manifest)
            extent = _extent(index)
            state = "prepared" if index.content.get("spec") == _wanted_spec(selection, name) else "outdated"
        except (PipelineError, KeyError) as error:
            index, state = None, "damaged"
            needs.append(_damaged(name, manifest, error))
    if index is None or state == "outdated":
        index, extent = None, planned(selection, name)
    sources = _sources(selection, name, needed=state != "prepared", needs=needs)
    annotations, counts = _annotations(selection, name, index, needs)
    if index is None and name in selection.study:
        counts = _published(selection, name, extent)
        needs += will_lack(selection, name, extent)
    row = _row(selection, name, state, extent, annotations, counts, sources)
    notes = tuple(note.line() for note in index.notes) if index else ()
    return Examined(replace(row, notes=notes), tuple(needs), extent, index)


def _damaged(name: str, manifest: Path, error: PipelineError | KeyError) -> Need:
    fix = f"snakemake --cores all -f {manifest}"
    if isinstance(error, KeyError):
        return Need("datasets", f"{name}: the manifest has no entry {error}", str(manifest), fix)
    return Need("datasets", f"{name}: {error.what}", error.where or str(manifest), error.fix or fix)


def _row(
    selection: Selection,
    name: str,
    state: DatasetState,
    extent: Extent | None,
    annotations: dict[str, dict[str, bool]],
    counts: Counts,
    sources: tuple[WeightRow, ...],
) -> DatasetRow:
    return DatasetRow(
        name=name,
        kind=selection.kind("datasets", name),
        licence=selection.datasets[name].licence,
        role=selection.roles[name],
        state=state,
        scenes=extent.scenes if extent else None,
        views=extent.views if extent else None,
        image_size=extent.image_size if extent else None,
        about=extent is not None and extent.about,
        annotations=annotations,
        samples=counts.evaluated,
        training=counts.trained,
        sources=sources,
    )


def _wanted_spec(selection: Selection, name: str) -> str:
    """Return the digest that `prepare` would write now; another digest, from other options or code, means preparing again."""
    return selection.datasets[name].digests(json.loads(Specs(selection.config).prepare(name)))[0]


def _extent(index: SceneIndex) -> Extent:
    scenes: dict[str, int] = {}
    views: dict[str, int] = {}
    for record in index:
        scenes[record.split] = scenes.get(record.split, 0) + 1
        views[record.split] = views.get(record.split, 0) + len(record.frame_ids)
    sizes = [record.image_size for record in index]
    return Extent(scenes, views, max(sizes, default=(0, 0), key=lambda size: size[0] * size[1]))


def planned(selection: Selection, name: str) -> Extent | None:
    plan = selection.datasets[name].planned()
    if plan is None:
        return None
    scenes = {split: count for split, count in plan.scenes.items() if count}
    return Extent(scenes, {split: count * plan.views for split, count in scenes.items()}, plan.image_size, plan.about)


def _sources(selection: Selection, name: str, *, needed: bool, needs: list[Need]) -> tuple[WeightRow, ...]:
    """Return the third-party files that preparing reads. They are missing only while the dataset is not prepared.

    Missing files of one origin are one need: they are got together.
    """
    rows = []
    missing: dict[str, list[SourceFile]] = {}
    for file in selection.datasets[name].source_files():
        there = file.path.exists()
        size = size_on_disk(file.path) if there and file.path.is_file() else file.bytes
        rows.append(
            WeightRow(f"datasets.{name}", str(file.path), file.what, file.source, size, "complete" if there else "not there")
        )
        if needed and not there:
            missing.setdefault(file.source, []).append(file)
    for source, files in missing.items():
        whats = ", ".join(dict.fromkeys(file.what for file in files))
        needs.append(Need("datasets", f"{name} needs {whats}", _joined([f.path for f in files]), f"get it from {source}"))
    return tuple(rows)


def _joined(paths: list[Path]) -> str:
    """Shorten paths: data/{a, b}.json for two files of one folder, others one after the other."""
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path.name)
    found = []
    for folder, names in folders.items():
        start = _same_start(names)
        rest = [name[len(start) :] for name in names]
        end = _same_start([name[::-1] for name in rest])[::-1]
        inner = ", ".join(name[: len(name) - len(end)] for name in rest)
        found.append(str(folder / (names[0] if len(names) == 1 else f"{start}{{{inner}}}{end}")))
    return ", ".join(found)


def _same_start(names: list[str]) -> str:
    """Return the whole words, with the mark behind them, that all names begin with."""
    same = "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))
    return same[: 1 + max(same.rfind(mark) for mark in "_-.")]


def _published(selection: Selection, name: str, extent: Extent | None) -> Counts:
    """Return the published sample counts of an unprepared dataset, for the benchmarks that have one."""
    plan = selection.datasets[name].planned()
    known = plan.samples if plan else {}
    split = selection.config.evaluation.split
    counts = Counts({}, {})
    for found, benchmarks, wanted in (
        (counts.evaluated, selection.evaluated, split),
        (counts.trained, selection.trained, "train"),
    ):
        for benchmark in benchmarks.values():
            number = known.get(wanted, {}).get(selection.kind("benchmarks", benchmark.name))
            if isinstance(benchmark, RepresentationBenchmark) and known and extent:
                number = extent.scenes.get(wanted, 0)
            if number is not None:
                found[benchmark.name] = number
    return counts


def will_lack(selection: Selection, name: str, extent: Extent | None) -> list[Need]:
    """Return scenes and annotations that the study reads and that preparing the dataset will not make, found in advance."""
    split = selection.config.evaluation.split
    where = f"datasets.{name}"
    lacking: dict[str, dict[str, None]] = {}
    empty: list[str] = []
    for benchmarks, wanted in ((selection.evaluated, split), (selection.trained, "train")):
        if extent is not None and not extent.scenes.get(wanted):
            empty.append(wanted)
            continue
        for benchmark in benchmarks.values():
            kind = selection.kind("benchmarks", benchmark.name)
            if not isinstance(benchmark, RepresentationBenchmark) and not selection.datasets[name].annotates(kind, wanted):
                lacking.setdefault(benchmark.name, {})[wanted] = None
    needs = []
    if empty:
        fix = "training reads the split train, scoring evaluation.split; the dataset's options put scenes into splits"
        needs.append(Need("datasets", f"{name} will have no scene of split {', '.join(dict.fromkeys(empty))}", where, fix))
    if lacking:
        what = ", ".join(f"{benchmark} ({', '.join(splits)})" for benchmark, splits in lacking.items())
        fix = (
            "ask for them in the dataset's options (rooms, front3d: vsibench_per_room; scannet: benchmarks; posed_rgbd: "
            "annotations, objects), or leave them out of study.benchmarks and of the recipes' train_on"
        )
        needs.append(Need("datasets", f"{name} will have no annotations of {what}", where, fix))
    return needs


def _annotations(
    selection: Selection, name: str, index: SceneIndex | None, needs: list[Need]
) -> tuple[dict[str, dict[str, bool]], Counts]:
    """Return which annotation files of a prepared study dataset are there, and how many samples they make."""
    counts = Counts({}, {})
    if index is None or name not in selection.study:
        return {}, counts
    split = selection.config.evaluation.split
    found: dict[str, dict[str, bool]] = {}
    for benchmarks, wanted in ((selection.evaluated, split), (selection.trained, "train")):
        for benchmark in benchmarks.values():
            if not isinstance(benchmark, RepresentationBenchmark):
                absent = _absent_annotations(selection, index, benchmark, wanted)
                found.setdefault(benchmark.name, {})[wanted] = absent is None
                if absent is not None:
                    needs.append(_no_annotations(name, benchmark, wanted, index, absent))
    for benchmark in selection.evaluated.values():
        if found.get(benchmark.name, {}).get(split, True):
            _count(counts.evaluated, benchmark, name, needs, partial(benchmark.samples, index, split))
    for benchmark in selection.trained.values():
        if found.get(benchmark.name, {}).get("train", True):
            _count(counts.trained, benchmark, name, needs, partial(benchmark.training_samples, index))
    return found, counts


def _count(
    counts: dict[str, int], benchmark: Benchmark, dataset: str, needs: list[Need], read: Callable[[], list[Sample]]
) -> None:
    """Count what can be read; a fault of the files is a need, listed once."""
    try:
        counts[benchmark.name] = len(read())
    except PipelineError as error:
        need = Need("datasets", f"{dataset}, {benchmark.name}: {error.what}", error.where or "", error.fix or "")
        if need not in needs:
            needs.append(need)


def _absent_annotations(selection: Selection, index: SceneIndex, benchmark: Benchmark, split: str) -> list[Path] | None:
    """Return files that the manifest names and that are gone (none: it names no file at all); None when all are there."""
    try:
        files = index.annotation_files(selection.kind("benchmarks", benchmark.name), split)
    except PipelineError:
        return []
    absent = [path for path in files if not path.is_file()]
    return absent if absent or not files else None


def _no_annotations(name: str, benchmark: Benchmark, split: str, index: SceneIndex, absent: list[Path]) -> Need:
    return Need(
        "datasets",
        f"{name} has no annotations of {benchmark.name} for split {split}",
        _joined(absent) if absent else str(index.path),
        f"prepare it with them (snakemake --cores all -f {index.path}) or leave {benchmark.name} out",
    )
