"""One whole room from its seed: layout and film."""

from __future__ import annotations

from typing import Any

from pipeline.core.provenance import seed_for
from pipeline.datasets._film.film import BuiltRoom, film, streams_of
from pipeline.datasets._film.render import Renderer
from pipeline.datasets.rooms.layout import make_room


def build_room(parts: tuple[Any, ...], *, views: int, size: tuple[int, int], objects: tuple[int, int]) -> BuiltRoom:
    """The room of a seed (``parts`` are hashed): every stage draws from its own stream, so one does not shift another."""
    streams = streams_of(parts)
    room = make_room(streams["layout"], objects)
    made = film(room, Renderer(room), streams, views=views, size=size, seed=seed_for(*parts))
    return BuiltRoom(made.frames, made.poses, made.matrix, made.rgb, made.depth_mm, made.visible, made.proposals, room)
