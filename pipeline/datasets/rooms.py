"""The built-in dataset: furnished rooms made from seeds, in the layout and the annotation formats of real scans.

Rooms need no download. They are written as a posed RGB-D folder with the official files of ScanRefer, Multi3DRefer, Scan2Cap,
ScanQA and SQA3D, so they exercise the readers and scorers that ScanNet uses. Split and number of a room give its seed:
splits are disjoint, the name of the dataset plays no part, and the same options give byte-identical files.

Run: python -m pipeline prepare --spec '{"dataset": {"name": "rooms", "kind": "rooms", "options": {}}}' --out DIR/manifest.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from pipeline.conventions import SPLITS
from pipeline.datasets.base import Dataset, ScenePlan
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.workers import in_processes

if TYPE_CHECKING:
    from pipeline.rooms.writers import RoomJob

SPAWN_FROM_ROOMS = 24
"""Fewest rooms for which worker processes are started: each takes about two seconds to start."""


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
        """Make the missing rooms, then all annotations and the manifest. Finished rooms with right checksums are kept."""
        from pipeline.rooms.annotate import annotate
        from pipeline.rooms.writers import make_room_files, read_room

        jobs = list(self._jobs(folder))
        rooms = {job.place: read_room(job.place) for job in jobs}
        missing = [job for job in jobs if rooms[job.place] is None]
        made = in_processes(make_room_files, missing, threads, doing="making rooms", chunk=4, fewest=SPAWN_FROM_ROOMS)
        with Progress(f"{self.name}: make", len(missing), "rooms") as progress:
            for job, room in zip(missing, made, strict=True):
                rooms[job.place] = room
                progress.step()
        found = [room for room in rooms.values() if room is not None]
        annotations = annotate([(record.split, facts) for record, facts in found], self.options)
        self.finish(folder, [record for record, _ in found], annotations=annotations)

    def _jobs(self, folder: Path) -> Iterator[RoomJob]:
        from pipeline.rooms.writers import RoomJob

        o = self.options
        for split in SPLITS:
            for number in range(getattr(o, split)):
                place = self.place(folder, f"room_{split}_{number:05d}", split)
                size, objects = (o.height_px, o.width_px), (o.objects_min, o.objects_max)
                yield RoomJob(place, number, o.seed, o.views, size, objects, o.vsibench_per_room > 0)
