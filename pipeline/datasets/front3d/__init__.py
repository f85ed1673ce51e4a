"""3D-FRONT: professionally designed houses with 3D-FUTURE furniture, filmed room by room like the built-in rooms.

Reads the released files: house JSON (``3D-FRONT.zip``) and models (``3D-FUTURE-model.zip``). Every room becomes a scene
``<house>_<room instanceid>`` in the posed RGB-D layout: z up, walls along the axes, floor at 0. Furniture is placed by scale,
rotation and translation; its category becomes a plain noun, the main colour of its texture a colour name; camera walk,
sensor, detector-like boxes and the annotations of the five benchmarks come from the same code as those of the built-in
rooms. A house belongs to one split, by a stable hash of its id.

Run: python -m pipeline prepare --spec SPEC --out DIR/manifest.json, where SPEC is
     '{"dataset": {"name": "front3d", "kind": "front3d", "options": {}}}'
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from pipeline.core.errors import DataError
from pipeline.core.files import entries
from pipeline.core.progress import Progress
from pipeline.core.provenance import seed_for, write_manifest
from pipeline.datasets._film.options import FilmedDataset, FilmedOptions
from pipeline.datasets.base import SCENES, Needs, ScenePlan, SourceFile
from pipeline.datasets.front3d.faults import Tally
from pipeline.scenes.conventions import checked_id

if TYPE_CHECKING:
    from pipeline.datasets._language.facts import RoomFacts
    from pipeline.datasets.front3d.work import HouseJob
    from pipeline.scenes.types import SceneRecord

SITE = "https://tianchi.aliyun.com/specials/promotion/alibaba-3d-scene-dataset (after agreeing to the terms)"
HOUSES, ROOMS = 6_813, 18_968
"""Houses of the release and furnished rooms in them (Fu et al., ICCV 2021)."""
MODELS_SIZE = "about 19 GB"
"""As users report it (README of AutoNetSim, IEEE ICNP 2026); no size of the other archives was found."""
WALLS = "3D-FRONT: textures of walls and floors <jid>/texture.png (3D-FRONT-texture.zip)"
REPORT = "report.json"
"""File beside the scenes with the counts of what was left out."""


class Front3dOptions(FilmedOptions):
    """Options: the files, the rooms that are taken, how they are filmed, and how many annotations they get."""

    houses: str = Field("data/3D-FRONT", min_length=1, description="Folder of the house files <house>.json.")
    models: str = Field("data/3D-FUTURE-model", min_length=1, description="Folder of the models <jid>/raw_model.obj.")
    textures: str | None = Field(
        None,
        min_length=1,
        description="Folder of the wall and floor textures <jid>/texture.png (3D-FRONT-texture.zip), of which the mean colours "
        "are used; null: parts with a texture get a plain colour of the built-in rooms.",
    )
    houses_max: int | None = Field(
        None, ge=1, description="Most houses, in the order of a stable hash of their ids; null: all (the release has 6,813)."
    )
    val_share: float = Field(0.05, ge=0, lt=1, description="Share of the houses in split val, by stable hash of the house id.")
    test_share: float = Field(0.1, ge=0, lt=1, description="Share of the houses in split test, by stable hash of the house id.")
    room_types: tuple[str, ...] | None = Field(
        None, min_length=1, description="Room types to take, e.g. [MasterBedroom, LivingDiningRoom]; null: all."
    )
    objects_min: int = Field(4, ge=1, le=100, description="Fewest objects with a noun in a room.")
    objects_max: int = Field(40, ge=1, le=900, description="Most objects with a noun in a room.")
    floor_min_m2: float = Field(5.0, gt=0, description="Smallest floor in square metres.")
    floor_max_m2: float = Field(80.0, gt=0, description="Largest floor in square metres.")
    side_min_m: float = Field(1.8, gt=0, description="Shortest side of a room's bounding rectangle in metres.")
    on_fault: Literal["skip", "refuse"] = Field(
        "skip",
        description="Missing or damaged models, transforms that are not finite, boxes of size zero: leave the item out and "
        "count it, or stop with a message. A house file that is no JSON always stops.",
    )
    views: int = Field(8, ge=1, le=64, description="Views per room, chosen from a walk to cover room and objects.")
    depth: Literal["sensor", "exact"] = Field(
        "sensor", description="Depth with a sensor's noise and holes, as in the built-in rooms, or without."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Front3dOptions:
        if self.val_share + self.test_share > 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} are more than all houses")
        for low, high in (("objects_min", "objects_max"), ("floor_min_m2", "floor_max_m2")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}")
        return self


class Front3d(FilmedDataset):
    """Rooms of 3D-FRONT."""

    options_model = Front3dOptions
    licence = (
        "3D-FRONT and 3D-FUTURE terms of use: non-commercial research only; files, and pictures made of them, "
        "may not be passed on"
    )
    needs = Needs(threads=8, mem_mb=8000, runtime_min=720)
    options: Front3dOptions

    def source_files(self) -> tuple[SourceFile, ...]:
        o = self.options
        houses, models = Path(o.houses), Path(o.models)
        return (
            SourceFile(_holding(houses, "*.json"), "3D-FRONT: house files <house>.json (3D-FRONT.zip)", SITE),
            SourceFile(
                _holding(models, "*/raw_model.obj"),
                f"3D-FUTURE: models <jid>/raw_model.obj, texture.png (3D-FUTURE-model.zip, {MODELS_SIZE})",
                SITE,
            ),
            SourceFile(models / "model_info.json", "3D-FUTURE: categories of the models", SITE),
            *((SourceFile(_holding(Path(o.textures), "*/texture.png"), WALLS, SITE),) if o.textures else ()),
        )

    def planned(self) -> ScenePlan:
        """Houses to take (of the release, while they are not there) times its rooms per house; how many of these the limits
        leave out is known when they are read.
        """
        o = self.options
        houses = sum(1 for _ in Path(o.houses).glob("*.json")) or HOUSES
        rooms = min(houses, o.houses_max or houses) * ROOMS / HOUSES
        shares = {"train": 1 - o.val_share - o.test_share, "val": o.val_share, "test": o.test_share}
        scenes = {split: max(1, round(rooms * share)) for split, share in shares.items() if share > 0}
        return ScenePlan(scenes, o.views, o.image_size, about=True)

    def prepare(self, folder: Path, *, threads: int) -> None:
        """Film the missing rooms house by house, then all annotations, then the manifest. Whole rooms are kept."""
        from pipeline.datasets._language.annotate import annotate
        from pipeline.datasets.front3d.work import MARKERS, film_houses, read_finished

        jobs = self._jobs(folder / SCENES)
        houses = {job.house_id: read_finished(job) for job in jobs}
        missing = [job for job in jobs if houses[job.house_id] is None]
        with Progress(f"{self.name}: film", len(missing), "houses") as progress:
            for job, house in zip(missing, film_houses(missing, threads), strict=True):
                houses[job.house_id] = house
                progress.step()
        tally = Tally()
        rooms: list[tuple[SceneRecord, RoomFacts]] = []
        for found in houses.values():
            if found is not None:
                rooms += found[0]
                tally.add(found[1])
        self._report(folder / SCENES / REPORT, jobs, rooms, tally)
        for path in (folder / SCENES / MARKERS).glob("*.json"):  # of an earlier, larger set
            if path.stem not in houses:
                path.unlink()
        annotations = annotate([(record.split, facts) for record, facts in rooms], self.options, source="front3d")
        asked = {
            benchmark: {split: files for split, files in splits.items() if all(map(_entries, files.values()))}
            for benchmark, splits in annotations.items()
        }  # without the splits about which a benchmark has nothing to ask
        self.finish(folder, [record for record, _ in rooms], annotations=asked, notes=tally.notes_of_faults())

    def _jobs(self, root: Path) -> list[HouseJob]:
        """One job per house file, in the order of ids."""
        from pipeline.datasets.front3d.assemble import Limits
        from pipeline.datasets.front3d.work import HouseJob

        o = self.options
        chosen = self._houses()
        common: dict[str, Any] = {
            "models": Path(o.models),
            "root": root,
            "spec": self.scenes_digest,
            "seed": o.seed,
            "views": o.views,
            "size": o.image_size,
            "limits": Limits((o.objects_min, o.objects_max), (o.floor_min_m2, o.floor_max_m2), o.side_min_m, o.room_types),
            "exact_depth": o.depth == "exact",
            "refuse": o.on_fault == "refuse",
            "textures": Path(o.textures) if o.textures else None,
            "spatial": o.vsibench_per_room > 0,
        }
        return [HouseJob(path=p, split=self.split_of(p.stem), **common) for p in chosen]

    def _houses(self) -> list[Path]:
        """The house files to take, in the order of ids. DataError when a folder is missing or there is none."""
        o = self.options
        fix = f"get it from {SITE}, or set datasets.{self.name}."
        folders = {"houses": o.houses, "models": o.models} | ({"textures": o.textures} if o.textures else {})
        for key, folder in folders.items():
            if not Path(folder).is_dir():
                raise DataError(f"the folder {folder} does not exist", where=f"datasets.{self.name}.{key}", fix=f"{fix}{key}")
        paths = [p for p in entries(Path(o.houses), "*.json") if p.is_file()]
        for path in paths:
            checked_id(path.stem, what="house id", where=str(path))
        paths.sort(key=lambda p: seed_for("front3d", "order", p.stem))
        chosen = sorted(paths[: o.houses_max])
        if not chosen:
            raise DataError(f"there is no house file <house>.json in {o.houses}", fix=f"{fix}houses")
        return chosen

    def split_of(self, house_id: str) -> str:
        """Split of a house: its place in [0,1) by a hash of its id; test first, then val, then train."""
        place = seed_for("front3d", "split", house_id) / 2**63
        if place < self.options.test_share:
            return "test"
        return "val" if place < self.options.test_share + self.options.val_share else "train"

    def _report(self, path: Path, jobs: list[HouseJob], rooms: list[Any], tally: Tally) -> None:
        """Say and write what was left out; DataError when nothing is left."""
        left_out = f"left out of {len(jobs)} houses:\n{tally.text()}" if tally.counts else "nothing was left out"
        if not rooms:
            where = f"datasets.{self.name}"
            raise DataError(f"no room is left to film; {left_out}", where=where, fix="widen the limits, or fix the files")
        print(f"{self.name}: {len(rooms)} rooms; {left_out}", file=sys.stderr)
        write_manifest(path, {"houses": len(jobs), "rooms": len(rooms), **tally.to_json()})


def _holding(folder: Path, pattern: str) -> Path:
    """The folder; where it is there and holds nothing of the kind (unpacked one level too deep), what is missing in it."""
    return folder / pattern if folder.is_dir() and next(folder.glob(pattern), None) is None else folder


def _entries(content: Any) -> Any:
    """The list of an annotation file; SQA3D's files wrap it."""
    return next(iter(content.values())) if isinstance(content, dict) else content
