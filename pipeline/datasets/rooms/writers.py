"""One room's folder: a film written as a scene, with the facts that the language needs as the facts of its marker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.datasets._film.catalog import ROOM_WORDS, Words
from pipeline.datasets._language.facts import RoomFacts, facts_from_json, facts_of
from pipeline.datasets.rooms.scene import build_room
from pipeline.scenes.types import SceneObject, SceneRecord
from pipeline.scenes.writer import ScenePlace, SceneWriter, jpeg_bytes

if TYPE_CHECKING:
    from pipeline.datasets._film.film import Film

JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class RoomJob:
    """Everything that makes one room: where it goes, its number among the rooms of its split, and the options that pixels
    depend on; ``spatial``: measure what VSI-Bench asks for.
    """

    place: ScenePlace
    number: int
    seed: int
    views: int
    size: tuple[int, int]
    objects: tuple[int, int]
    spatial: bool = False


def make_room_files(job: RoomJob) -> tuple[SceneRecord, RoomFacts]:
    """Make a room and write its folder."""
    place = job.place
    built = build_room((job.seed, place.split, job.number), views=job.views, size=job.size, objects=job.objects)
    return write_room(place, built, facts_of(place.scene_id, built, spatial=job.spatial))


def write_room(
    place: ScenePlace, film: Film, content: dict[str, Any], words: Words = ROOM_WORDS
) -> tuple[SceneRecord, RoomFacts]:
    """Write the folder of a filmed room, of whose facts ``content`` is the JSON."""
    facts = facts_from_json(content, words)
    writer = SceneWriter(place, facts.frame_ids, film.poses, film.matrix)
    for view, (rgb, depth_mm) in enumerate(zip(film.rgb, film.depth_mm, strict=True)):
        writer.frame(view, jpeg_bytes(rgb, JPEG_QUALITY), depth_mm)
    proposals = None if place.split == "train" else film.proposals
    return writer.finish(_objects(facts), proposals, content), facts


def _objects(facts: RoomFacts) -> list[SceneObject]:
    found = []
    for thing in facts.things:
        attributes = {"color": thing.colour} | ({} if thing.on is None else {"on": str(thing.on)})
        found.append(SceneObject(thing.object_id, thing.category, thing.box(), attributes))
    return found


def read_room(place: ScenePlace, words: Words = ROOM_WORDS) -> tuple[SceneRecord, RoomFacts] | None:
    """Record and facts of a finished room; None when it has to be made."""
    found = place.finished()
    return found and (found[0], facts_from_json(found[1], words))
