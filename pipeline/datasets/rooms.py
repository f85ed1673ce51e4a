"""The built-in dataset: furnished rooms made from seeds, in the layout and the annotation formats of real scans.

Rooms need no download. They are written as a posed RGB-D folder with the official files of ScanRefer, Multi3DRefer, Scan2Cap,
ScanQA and SQA3D, so they exercise the readers and scorers that ScanNet uses. Split and number of a room give its seed:
splits are disjoint, the name of the dataset plays no part, and the same options give byte-identical files.

Run: python -m pipeline prepare --spec '{"dataset": {"name": "rooms", "kind": "rooms", "options": {}}}' --out DIR/manifest.json
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from pipeline.conventions import SPLITS
from pipeline.datasets.base import Dataset, ScenePlan
from pipeline.errors import DataError
from pipeline.options import Options
from pipeline.provenance import digest, write_atomic

if TYPE_CHECKING:
    from pipeline.rooms.facts import RoomFacts
    from pipeline.rooms.writers import RoomJob
    from pipeline.scene import SceneRecord

SPAWN_FROM_ROOMS = 24
"""Fewer rooms than this are made in one process: a worker takes about two seconds to start."""


class RoomsOptions(Options):
    """Numbers of rooms, views and questions. Numbers per room are aims: a sparse room may offer fewer."""

    train: int = Field(200, ge=0, le=99_999, description="Rooms of the split train.")
    val: int = Field(40, ge=0, le=99_999, description="Rooms of the split val.")
    test: int = Field(40, ge=0, le=99_999, description="Rooms of the split test.")
    views: int = Field(6, ge=1, le=64, description="Views per room, chosen from a walk to cover room and objects.")
    width_px: int = Field(128, ge=32, le=1280, description="Width of colour and depth images in pixels.")
    height_px: int = Field(96, ge=32, le=1280, description="Height of colour and depth images in pixels.")
    seed: int = Field(0, ge=0, description="Rooms of different seeds share nothing.")
    objects_min: int = Field(5, ge=3, le=12, description="Fewest objects of a room.")
    objects_max: int = Field(12, ge=3, le=16, description="Most objects of a room.")
    described_objects: int = Field(6, ge=1, le=16, description="Objects per room that ScanRefer and Scan2Cap describe.")
    descriptions_per_object: int = Field(3, ge=1, le=5, description="Descriptions of each described object.")
    multi3drefer_per_room: int = Field(6, ge=1, le=20, description="Multi3DRefer descriptions per room.")
    scanqa_per_room: int = Field(6, ge=1, le=20, description="ScanQA questions per room.")
    sqa3d_per_room: int = Field(6, ge=1, le=20, description="SQA3D questions per room.")
    vsibench_per_room: int = Field(0, ge=0, le=40, description="VSI-Bench questions per room; 0 writes no file of them.")
    view_questions: int = Field(4, ge=1, le=12, description="Single-view questions per view (split train only).")

    @model_validator(mode="after")
    def _consistent(self) -> RoomsOptions:
        if self.train + self.val + self.test < 1:
            raise ValueError("train, val and test are all 0: there is no room to make")
        if self.objects_min > self.objects_max:
            raise ValueError(f"objects_min {self.objects_min} is above objects_max {self.objects_max}")
        return self


class Rooms(Dataset):
    """Procedural rooms."""

    options_model = RoomsOptions
    example: ClassVar[Mapping[str, Any]] = {"train": 2, "val": 1, "test": 2, "views": 4}
    licence = "Apache-2.0 (made here)"
    renders = True
    options: RoomsOptions

    def planned(self) -> ScenePlan:
        o = self.options
        return ScenePlan({split: getattr(o, split) for split in SPLITS}, o.views, (o.height_px, o.width_px))

    def annotates(self, kind: str, split: str) -> bool:
        """All kinds; VSI-Bench on request."""
        return kind != "vsibench" or self.options.vsibench_per_room > 0

    def prepare(self, folder: Path, *, threads: int) -> None:
        """Make the missing rooms, then all annotations, then the manifest. Finished rooms with right checksums are kept."""
        from pipeline.index import write_index
        from pipeline.rooms.annotate import annotate
        from pipeline.rooms.writers import read_room

        spec = self.spec_digest or digest(self.options.model_dump(mode="json"))
        jobs = list(self._jobs(folder / "posed_images", spec))
        found = {job.scene_id: read_room(job) for job in jobs}
        missing = [job for job in jobs if found[job.scene_id] is None]
        for job in _progress(_make(missing, threads), len(missing), len(jobs)):
            found[job.scene_id] = read_room(job)
        rooms: list[tuple[SceneRecord, RoomFacts]] = []
        for job in jobs:
            room = found[job.scene_id]
            if room is None:
                raise DataError(f"{job.folder} was written but reads back damaged", fix="check the disk and run it again")
            rooms.append(room)
        _remove_others(folder / "posed_images", set(found))
        files = annotate([(record.split, facts) for record, facts in rooms], self.options)
        for name, content in files.contents.items():
            write_atomic(folder / "annotations" / name, json.dumps(content, separators=(",", ":")) + "\n")
        records = [record for record, _ in rooms]
        write_index(folder, records, dataset=self.name, root="posed_images", annotations=files.by_benchmark, spec=spec)

    def _jobs(self, root: Path, spec: str) -> Iterator[RoomJob]:
        from pipeline.rooms.writers import RoomJob

        o = self.options
        for split in SPLITS:
            for number in range(getattr(o, split)):
                size, objects = (o.height_px, o.width_px), (o.objects_min, o.objects_max)
                yield RoomJob(root, split, number, o.seed, o.views, size, objects, spec, o.vsibench_per_room > 0)


def _make(jobs: list[RoomJob], threads: int) -> Iterator[RoomJob]:
    """Make rooms, in worker processes when that pays; yields each when its files are there."""
    from pipeline.rooms.writers import make_room_files
    from pipeline.workers import in_processes

    if threads <= 1 or len(jobs) < SPAWN_FROM_ROOMS:
        for job in jobs:
            make_room_files(job)
            yield job
        return
    made = in_processes(make_room_files, jobs, threads, doing="making rooms", chunk=4)
    for job, _ in zip(jobs, made, strict=True):
        yield job


def _progress(made: Iterator[RoomJob], missing: int, total: int) -> Iterator[RoomJob]:
    """Pass through, with about ten lines on stderr."""
    if missing < total:
        print(f"rooms: {total - missing} of {total} are there already", file=sys.stderr)
    step = max(1, missing // 10)
    for number, job in enumerate(made, start=1):
        yield job
        if number % step == 0 or number == missing:
            print(f"rooms: {total - missing + number} of {total} made", file=sys.stderr, flush=True)


def _remove_others(root: Path, keep: set[str]) -> None:
    """Remove room folders of an earlier, larger set, so that the folder holds what the manifest says."""
    for path in sorted(root.glob("room_*")):
        if path.is_dir() and path.name not in keep:
            shutil.rmtree(path)
