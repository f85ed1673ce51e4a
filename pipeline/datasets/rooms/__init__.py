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

from pipeline.core.progress import Progress
from pipeline.core.workers import in_processes
from pipeline.datasets._film.options import FilmedDataset, FilmedOptions
from pipeline.datasets.base import ScenePlan
from pipeline.scenes.conventions import SPLITS

if TYPE_CHECKING:
    from pipeline.datasets.rooms.writers import RoomJob

SPAWN_FROM_ROOMS = 24
"""Fewest rooms for which worker processes are started: each takes about two seconds to start."""


class RoomsOptions(FilmedOptions):
    """Numbers of rooms, their objects, and how they are filmed."""

    train: int = Field(200, ge=0, le=99_999, description="Rooms of the split train.")
    val: int = Field(40, ge=0, le=99_999, description="Rooms of the split val.")
    test: int = Field(40, ge=0, le=99_999, description="Rooms of the split test.")
    objects_min: int = Field(5, ge=3, le=12, description="Fewest objects of a room.")
    objects_max: int = Field(12, ge=3, le=16, description="Most objects of a room.")

    @model_validator(mode="after")
    def _consistent(self) -> RoomsOptions:
        if self.train + self.val + self.test < 1:
            raise ValueError("train, val and test are all 0: there is no room to make")
        if self.objects_min > self.objects_max:
            raise ValueError(f"objects_min {self.objects_min} is above objects_max {self.objects_max}")
        return self


class Rooms(FilmedDataset):
    """Procedural rooms."""

    options_model = RoomsOptions
    example: ClassVar[Mapping[str, Any]] = {"train": 2, "val": 1, "test": 2, "views": 4}
    licence = "Apache-2.0 (made here)"
    options: RoomsOptions

    def planned(self) -> ScenePlan:
        o = self.options
        return ScenePlan({split: getattr(o, split) for split in SPLITS}, o.views, o.image_size)

    def prepare(self, folder: Path, *, threads: int) -> None:
        """Make the missing rooms, then all annotations and the manifest. Finished rooms with right checksums are kept."""
        from pipeline.datasets._language.annotate import annotate
        from pipeline.datasets.rooms.writers import make_room_files, read_room

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
        from pipeline.datasets.rooms.writers import RoomJob

        o = self.options
        for split in SPLITS:
            for number in range(getattr(o, split)):
                place = self.place(folder, f"room_{split}_{number:05d}", split)
                objects = o.objects_min, o.objects_max
                yield RoomJob(place, number, o.seed, o.views, o.image_size, objects, o.vsibench_per_room > 0)
