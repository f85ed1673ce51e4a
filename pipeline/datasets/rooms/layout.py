"""A room and its furniture: shell, doors and windows, then objects without collisions, then things on things."""

from __future__ import annotations

import numpy as np

from pipeline.datasets._film.catalog import CATEGORIES, COLOURS, FLOORS, WALLS, Category
from pipeline.datasets._film.mesh import Mesh
from pipeline.datasets._film.room import NORMALS, Item, Opening, Rect, Room, overlap
from pipeline.datasets.rooms.furniture import BUILDERS, Style

YAWS = (0.0, np.pi / 2, np.pi, -np.pi / 2)
GAP_M = 0.10
"""Free floor between any two objects."""


def make_room(rng: np.random.Generator, objects: tuple[int, int]) -> Room:
    """A furnished room; the number of objects is drawn from ``objects`` (lowest, highest) and limited by the floor."""
    room = _shell(rng)
    builder = _Furnisher(room, rng)
    for category, colour in _wish_list(rng, room, objects):
        if len(room.items) < objects[1]:
            builder.place(CATEGORIES[category], colour)
    for _ in range(20):
        if len(room.items) >= objects[0]:
            break
        builder.place(CATEGORIES[str(rng.choice(["chair", "box", "bin", "stool", "plant"]))], _colour(rng))
    return room


def _colour(rng: np.random.Generator) -> str:
    return str(rng.choice(list(COLOURS)))


def _shell(rng: np.random.Generator) -> Room:
    width, length = rng.uniform(3.5, 6.5, 2)
    shift = rng.uniform(-0.3, 0.3, 2)
    bounds = (shift[0] - width / 2, shift[1] - length / 2, shift[0] + width / 2, shift[1] + length / 2)
    pillar = None
    if min(width, length) > 4.4 and rng.random() < 0.35:
        a, b = rng.uniform(0.9, 1.7, 2)
        left, low = rng.random() < 0.5, rng.random() < 0.5
        x = (bounds[0], bounds[0] + a) if left else (bounds[2] - a, bounds[2])
        y = (bounds[1], bounds[1] + b) if low else (bounds[3] - b, bounds[3])
        pillar = (x[0], y[0], x[1], y[1])
    tint = rng.uniform(0.94, 1.05)
    wall = tuple(float(c * tint) for c in WALLS[int(rng.integers(len(WALLS)))])
    floor = tuple(float(c * tint) for c in FLOORS[int(rng.integers(len(FLOORS)))])
    room = Room(tuple(map(float, bounds)), float(rng.uniform(2.5, 2.9)), pillar, [], wall, floor)  # type: ignore[arg-type]
    _open(room, "door", rng)
    for _ in range(1 if rng.random() < 0.65 else 2):
        _open(room, "window", rng)
    return room


def _open(room: Room, kind: str, rng: np.random.Generator) -> None:
    """Cut a door or window into a wall where it is free; a window that finds no place is left out."""
    for _ in range(40):
        wall = int(rng.integers(4))
        wide = 0.9 if kind == "door" else float(rng.uniform(1.0, 1.6))
        room_left = room.wall_length(wall) - wide - 0.3
        along = wide / 2 + 0.15 + float(rng.uniform(0, 1)) * room_left
        z = (0.0, 2.05) if kind == "door" else (0.95, 2.1)
        spot = _strip(room, wall, along, wide, 0.9)
        taken = [_strip(room, o.wall, o.along, o.width, 0.9) for o in room.openings] + ([room.pillar] if room.pillar else [])
        if not any(overlap(spot, other, 0.1) for other in taken):
            room.openings.append(Opening(kind, wall, along, wide, z, room.wall_point(wall, along, 0.0)))
            return


def _strip(room: Room, wall: int, along: float, width: float, depth: float) -> Rect:
    """The floor in front of a stretch of a wall."""
    a, b = room.wall_point(wall, along - width / 2, 0.0), room.wall_point(wall, along + width / 2, depth)
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))


def _wish_list(rng: np.random.Generator, room: Room, objects: tuple[int, int]) -> list[tuple[str, str]]:
    """Categories with colours in the order of placing: large ones, then repeated ones, then others, then things on top."""
    area = (room.bounds[2] - room.bounds[0]) * (room.bounds[3] - room.bounds[1])
    count = int(np.clip(rng.integers(objects[0], objects[1] + 1), objects[0], max(objects[0], round(area * 0.42))))
    large = [c for c in CATEGORIES.values() if c.large]
    rest = [c for c in CATEGORIES.values() if not c.large]
    wishes: list[str] = _draw(rng, large, min(int(rng.integers(2, 5)), count - 2))
    if rng.random() < 0.3:
        wishes.append(str(rng.choice([w for w in wishes if CATEGORIES[w].most > 1])))
    twins = _draw(rng, [c for c in rest if c.most > 2], int(rng.integers(1, 3)))
    groups = [[twin] * int(rng.integers(2, 4 + (rng.random() < 0.2) * (CATEGORIES[twin].most > 3))) for twin in twins]
    others = _draw(rng, [c for c in rest if c.name not in twins], len(rest))
    wishes += [*groups[0], *others[: int(rng.integers(1, 4))], *(w for group in groups[1:] for w in group), *others[3:]]
    floor_first = sorted(wishes[:count], key=lambda w: (not CATEGORIES[w].large, CATEGORIES[w].placement == "top"))
    palettes: dict[str, list[str]] = {}
    result = []
    for wish in floor_first:
        if wishes.count(wish) > 1:
            palette = palettes.setdefault(wish, [str(c) for c in rng.choice(list(COLOURS), 2, replace=False)])
            result.append((wish, str(rng.choice(palette))))
        else:
            result.append((wish, _colour(rng)))
    return result


def _draw(rng: np.random.Generator, pool: list[Category], count: int) -> list[str]:
    """Different categories by their weights."""
    weights = np.array([c.weight for c in pool])
    picked = rng.choice(len(pool), size=min(max(count, 0), len(pool)), replace=False, p=weights / weights.sum())
    return [pool[int(i)].name for i in picked]


class _Furnisher:
    """Places objects one by one and remembers what is taken."""

    def __init__(self, room: Room, rng: np.random.Generator):
        self.room, self.rng = room, rng
        self.taken: list[Rect] = [room.pillar] if room.pillar else []
        self.taken += [_strip(room, o.wall, o.along, o.width, 0.8) for o in room.openings if o.kind == "door"]

    def place(self, category: Category, colour: str) -> bool:
        """Try to place one object; False when no free place was found."""
        if category.placement == "top":
            return self._on_top(category, colour)
        if category.small_on_top and self.rng.random() < 0.5 and self._on_top(category, colour):
            return True
        mesh = self._build(category, colour, small=False)
        if category.placement == "hung":
            return self._hang(category, colour, mesh)
        for _ in range(30):
            if category.placement == "wall":
                placed, front, off_wall = self._against_wall(mesh)
            else:
                placed, front, off_wall = self._free(category, mesh)
            if self._fits(placed, off_wall):
                low, high = placed.bounds()
                self.taken.append((low[0], low[1], high[0], high[1]))
                self._add(category, colour, placed, None, front)
                return True
        return False

    def _build(self, category: Category, colour: str, *, small: bool) -> Mesh:
        jitter = self.rng.uniform(0.93, 1.07) * self.rng.uniform(0.97, 1.03, 3)
        main = np.clip(np.asarray(COLOURS[colour]) * jitter, 0.0, 1.0)
        return BUILDERS[category.name](Style(tuple(main.tolist()), self.rng, small))

    def _against_wall(self, mesh: Mesh) -> tuple[Mesh, tuple[float, float], int]:
        wall = int(self.rng.integers(4))
        low, high = mesh.bounds()
        width, depth = high[0] - low[0], high[1] - low[1]
        slack = self.room.wall_length(wall) - width - 0.1
        t = float(self.rng.random()) if self.rng.random() < 0.6 else float(self.rng.integers(2))
        along = width / 2 + 0.05 + t * max(slack, 0.0)
        x, y = self.room.wall_point(wall, along, depth / 2 + float(self.rng.uniform(0.02, 0.06)))
        return mesh.moved(YAWS[wall], (x, y, 0.0)), NORMALS[wall], wall

    def _free(self, category: Category, mesh: Mesh) -> tuple[Mesh, tuple[float, float], int]:
        hosts = [i for i in self.room.items if i.category in ("desk", "table")]
        if category.name == "chair" and hosts and self.rng.random() < 0.55:
            return self._at_host(hosts[int(self.rng.integers(len(hosts)))], mesh)
        yaw = float(self.rng.uniform(-np.pi, np.pi))
        x0, y0, x1, y1 = self.room.bounds
        turned = mesh.moved(yaw, (0.0, 0.0, 0.0))
        low, high = turned.bounds()
        u, v = self.rng.uniform(0.04, 0.96, 2)
        if self.rng.random() < 0.35:
            u = float(np.rint(u)) * 0.96 + 0.02
        x = x0 - low[0] + 0.06 + u * (x1 - x0 - (high[0] - low[0]) - 0.12)
        y = y0 - low[1] + 0.06 + v * (y1 - y0 - (high[1] - low[1]) - 0.12)
        return turned.moved(0.0, (x, y, 0.0)), (-float(np.sin(yaw)), float(np.cos(yaw))), -1

    def _at_host(self, host: Item, mesh: Mesh) -> tuple[Mesh, tuple[float, float], int]:
        """A chair in front of a desk or at a table, facing it."""
        centre = (host.low[:2] + host.high[:2]) / 2
        side = np.asarray(host.front if host.category == "desk" else NORMALS[int(self.rng.integers(4))])
        reach = float(np.abs(side) @ (host.high[:2] - host.low[:2])) / 2 + float(self.rng.uniform(0.36, 0.5))
        x, y = centre + side * reach + side[::-1] * float(self.rng.uniform(-0.2, 0.2))
        yaw = float(np.arctan2(side[0], -side[1])) + float(self.rng.uniform(-0.25, 0.25))
        return mesh.moved(yaw, (x, y, 0.0)), (-float(np.sin(yaw)), float(np.cos(yaw))), -1

    def _fits(self, mesh: Mesh, wall: int) -> bool:
        low, high = mesh.bounds()
        rect = (low[0], low[1], high[0], high[1])
        x0, y0, x1, y1 = self.room.bounds
        if rect[0] < x0 + 0.01 or rect[1] < y0 + 0.01 or rect[2] > x1 - 0.01 or rect[3] > y1 - 0.01:
            return False
        if any(overlap(rect, other, GAP_M) for other in self.taken):
            return False
        windows = [_strip(self.room, o.wall, o.along, o.width, 0.5) for o in self.room.openings if o.kind == "window"]
        if high[2] > 1.0 and any(overlap(rect, w) for w in windows):
            return False
        hung = [i.rect for i in self.room.items if i.category == "picture"]
        return high[2] < 1.15 or not any(overlap(rect, h, 0.05) for h in hung)

    def _on_top(self, category: Category, colour: str) -> bool:
        hosts = [i for i in self.room.items if CATEGORIES[i.category].support]
        mesh = self._build(category, colour, small=True)
        for _ in range(8 if hosts else 0):
            host = hosts[int(self.rng.integers(len(hosts)))]
            yaw = float(np.arctan2(-host.front[0], host.front[1])) if host.front else YAWS[int(self.rng.integers(4))]
            turned = mesh.moved(yaw + float(self.rng.uniform(-0.08, 0.08)), (0.0, 0.0, 0.0))
            low, high = turned.bounds()
            space = (host.high - host.low)[:2] - (high - low)[:2] - 0.06
            if (space < 0).any():
                continue
            place = host.low[:2] + 0.03 - low[:2] + self.rng.uniform(0, 1, 2) * space
            placed = turned.moved(0.0, (place[0], place[1], host.high[2] + 0.001))
            rect = (*placed.bounds()[0][:2], *placed.bounds()[1][:2])
            if any(overlap(rect, i.rect, 0.06) for i in self.room.items if i.on == host.object_id):
                continue
            front = (-float(np.sin(yaw)), float(np.cos(yaw))) if category.faces else None
            self._add(category, colour, placed, host.object_id, front)
            return True
        return False

    def _hang(self, category: Category, colour: str, mesh: Mesh) -> bool:
        low, high = mesh.bounds()
        for _ in range(20):
            wall = int(self.rng.integers(4))
            along = float(self.rng.uniform(high[0] + 0.15, self.room.wall_length(wall) - high[0] - 0.15))
            x, y = self.room.wall_point(wall, along, 0.005)
            placed = mesh.moved(YAWS[wall], (x, y, float(self.rng.uniform(1.5, 1.7))))
            strip = _strip(self.room, wall, along, high[0] - low[0], 0.7)
            blocked = [_strip(self.room, o.wall, o.along, o.width, 0.3) for o in self.room.openings]
            blocked += [i.rect for i in self.room.items if i.high[2] > 1.15]
            blocked += [self.room.pillar] if self.room.pillar else []
            if not any(overlap(strip, b, 0.08) for b in blocked):
                self._add(category, colour, placed, None, NORMALS[wall])
                return True
        return False

    def _add(self, category: Category, colour: str, mesh: Mesh, on: int | None, front: tuple[float, float] | None) -> None:
        low, high = mesh.bounds()
        facing = front if category.faces else None
        self.room.items.append(Item(len(self.room.items), category.name, colour, mesh, low, high, on, facing))
