"""The work on one house: its rooms filmed and written one by one, then a marker that says what was left out and why.

A room is whole and of the same files or it is made again (scene_writer.py); a house is gone through
again when a room of it is not whole, or when its file, a model or a texture has changed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import DataError, FrameError
from pipeline.core.provenance import canonical_json, digest, file_digest, seed_for, write_atomic
from pipeline.core.workers import in_processes
from pipeline.datasets._film.film import film, streams_of
from pipeline.datasets._language.facts import spatial_facts
from pipeline.datasets.front3d.assemble import assemble
from pipeline.datasets.front3d.faults import Tally
from pipeline.datasets.front3d.fingerprint import fingerprint, jids_of, state_of, textures_of
from pipeline.datasets.front3d.finish import Finishes
from pipeline.datasets.front3d.house import read_house
from pipeline.datasets.front3d.model import ModelStore
from pipeline.datasets.front3d.render import FrontRenderer
from pipeline.datasets.front3d.words import FRONT_WORDS
from pipeline.datasets.rooms.writers import read_room, write_room
from pipeline.scenes.conventions import checked_id
from pipeline.scenes.writer import ScenePlace

if TYPE_CHECKING:
    from pipeline.datasets._film.film import Film
    from pipeline.datasets._language.facts import RoomFacts
    from pipeline.datasets.front3d.assemble import FrontRoom, Limits
    from pipeline.scenes.types import SceneRecord

House = tuple[list[tuple["SceneRecord", "RoomFacts"]], dict[str, Any]]
"""Rooms of a house, and what was left out of it."""
MARKERS = ".houses"
"""Folder of the houses' markers below the root of the scenes."""
SPAWN_FROM_HOUSES = 4
"""Fewest houses for which worker processes are started: each takes about two seconds to start."""


@dataclass(frozen=True, slots=True)
class HouseJob:
    """A house file and everything that its scenes depend on; ``spatial``: measure what VSI-Bench asks for."""

    path: Path
    models: Path
    root: Path
    split: str
    spec: str
    seed: int
    views: int
    size: tuple[int, int]
    limits: Limits
    exact_depth: bool
    refuse: bool
    textures: Path | None
    spatial: bool

    @property
    def house_id(self) -> str:
        return self.path.stem

    @property
    def marker(self) -> Path:
        return self.root / MARKERS / f"{self.house_id}.json"

    def place(self, scene_id: str, made_of: str) -> ScenePlace:
        """Return where a room of this house goes; ``made_of``: its fingerprint."""
        return ScenePlace(self.root / scene_id, self.split, digest([self.spec, made_of]))

    def state(self, jids: Collection[str], textures: Collection[str]) -> str:
        """Digest of the files of these models and textures as they are now."""
        return state_of(self.models, self.textures, jids, textures)


def read_finished(job: HouseJob) -> House | None:
    """Rooms of a finished house and what was left out; None when it is not finished, not whole, or of other files."""
    try:
        content = json.loads(job.marker.read_text(encoding="utf-8"))
        if content["spec"] != job.spec or content["source"] != file_digest(job.path):
            return None
        if content["state"] != job.state(content["models"], content["textures"]):
            return None
        places = [
            job.place(checked_id(i, what="scene id", where=str(job.marker)), made_of) for i, made_of in content["rooms"].items()
        ]
        left_out = {"counts": dict(content["counts"]), "notes": dict(content["notes"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
        return None
    rooms = [read_room(place, FRONT_WORDS) for place in places]
    whole = [room for room in rooms if room is not None]
    return (whole, left_out) if len(whole) == len(rooms) else None


def film_house(job: HouseJob) -> House:
    """Write the rooms of a house that are not there yet, then its marker; all its rooms."""
    tally, finishes = Tally(refuse=job.refuse), Finishes(job.textures)
    source_digest, sources = file_digest(job.path), read_house(job.path, tally)
    models, textures = (sorted(set().union(*map(of, sources))) for of in (jids_of, textures_of))
    content: dict[str, Any] = {"spec": job.spec, "source": source_digest, "models": models, "textures": textures}
    content["state"] = job.state(models, textures)
    rooms: list[tuple[SceneRecord, RoomFacts]] = []
    finished: dict[str, str] = {}
    for source in sources:
        where = f"{job.path}: room {source.room_id}"
        scene_id = checked_id(f"{job.house_id}_{source.room_id}", what="scene id", where=where)
        room = assemble(scene_id, source, _store(job.models), finishes, tally, job.limits)
        if isinstance(room, str):
            tally.choice(room)
            continue
        made_of = fingerprint(source, room, job.state(jids_of(source), ()))
        place = job.place(scene_id, made_of)
        written = read_room(place, FRONT_WORDS) or _film_room(job, place, room)
        if written is None:
            tally.choice("room without a free place for a camera")
            continue
        rooms.append(written)
        finished[scene_id] = made_of
    rooms.sort(key=lambda room: room[0].scene_id)  # as the marker has them
    left_out = tally.to_json()
    write_atomic(job.marker, canonical_json(content | {"rooms": finished} | left_out) + "\n")
    return rooms, left_out


_STORES: dict[Path, ModelStore] = {}


def _store(root: Path) -> ModelStore:
    """This process's models of a folder; one folder at a time stays in memory."""
    if root not in _STORES:
        _STORES.clear()
        _STORES[root] = ModelStore(root)
    return _STORES[root]


def _film_room(job: HouseJob, place: ScenePlace, room: FrontRoom) -> tuple[SceneRecord, RoomFacts] | None:
    """Film and write one room; None when no camera fits into it."""
    parts = ("front3d", job.seed, room.scene_id)
    renderer = FrontRenderer(room)
    try:
        made = film(
            room,
            renderer,
            streams_of(parts),
            views=job.views,
            size=job.size,
            seed=seed_for(*parts),
            exact_depth=job.exact_depth,
        )
    except FrameError:
        return None
    return write_room(place, made, facts_content(room, made, spatial=job.spatial), FRONT_WORDS)


def facts_content(room: FrontRoom, made: Film, *, spatial: bool) -> dict[str, Any]:
    """Facts of a filmed room as JSON content, in the form of the built-in rooms (see rooms/facts.py) with what they lack."""

    def numbers(values: Any) -> list[float]:
        return [round(float(v), 4) for v in values]

    return (spatial_facts(room.items) if spatial else {}) | {
        "scene_id": room.scene_id,
        "frame_ids": [f"{frame:05d}" for frame in made.frames],
        "bounds": numbers(room.bounds),
        "pillar": None,
        "rectangular": room.plan.rectangular,
        "blocked": [numbers(rect) for rect in room.blocked()],
        "unnamed": [numbers(rect) for rect in room.unnamed()],
        "unsaid": list(room.unsaid),
        "floor_m2": round(room.plan.area_m2, 2),
        "world_from_house": [numbers(row) for row in room.frame.matrix()],
        "things": [
            {
                "object_id": i.object_id, "category": i.category, "colour": i.colour, "low": numbers(i.low),
                "high": numbers(i.high), "on": i.on, "front": numbers(i.front) if i.front else None,
                "hangs": room.hangs[i.object_id],
            }
            for i in room.items
        ],
        "landmarks": [
            {"kind": m.kind, "centre": numbers(m.centre), "normal": numbers(m.normal), "width": round(m.width, 4)}
            for m in room.landmarks
        ],
        "visible": [{str(k): v for k, v in shares.items()} for shares in made.visible],
    }  # fmt: skip


def film_houses(jobs: Sequence[HouseJob], threads: int) -> Iterator[House]:
    """Go through houses, in worker processes when that pays; yields each when it is done."""
    _STORES.clear()  # models may have changed since this process read them
    return in_processes(film_house, jobs, threads, doing="filming houses", fewest=SPAWN_FROM_HOUSES)
