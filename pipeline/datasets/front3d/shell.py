"""The building around a room: world frame, floor plan, doors and windows, and the meshes of walls, floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.provenance import seed_for
from pipeline.datasets._film.catalog import FLOORS, WALLS
from pipeline.datasets._film.mesh import EMISSIVE, PLAIN, PLANKS, Mesh, merge
from pipeline.datasets._language.facts import Landmark
from pipeline.datasets.front3d.faults import Tally
from pipeline.datasets.front3d.finish import Colour, Finishes
from pipeline.datasets.front3d.house import HouseRoom

Floats = NDArray[np.float64]
Rect = tuple[float, float, float, float]
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""3D-FRONT's axes (y up) in the project's (z up); a quarter turn about x, so that nothing is mirrored."""
CELL_M = 0.1
RECTANGULAR_SHARE = 0.98
"""Share of the bounding rectangle from which a floor counts as rectangular."""
HEAD_M = 1.9
"""What begins higher is above a standing person's head."""
THIN_M = 0.15
"""Lower things (rugs, skirting boards) are no obstacle."""
CEILING_M = 2.6
"""Height of a room that has neither walls nor a ceiling."""


@dataclass(frozen=True, slots=True)
class WorldFrame:
    """World = ``turn`` (3,3) x house point + ``shift`` (3,): z up, walls along x and y, floor at z = 0, middle at 0."""

    turn: Floats
    shift: Floats

    def points(self, points: Floats) -> Floats:
        """House points (N,3), y up, in the world frame."""
        return np.asarray(points @ self.turn.T + self.shift)

    def matrix(self) -> Floats:
        """World-from-house (4,4)."""
        whole = np.eye(4)
        whole[:3, :3], whole[:3, 3] = self.turn, self.shift
        return whole


@dataclass(frozen=True, slots=True)
class Solid:
    """A mesh of the building in the world frame: ``kind`` floor, ceiling, wall, door, window or other; ``colour`` its albedo,
    None for one of the palette."""

    kind: str
    vertices: Floats
    triangles: NDArray[np.int64]
    colour: Colour | None = None


@dataclass(frozen=True)
class FloorPlan:
    """Cells of ``CELL_M`` from the corner ``low`` (2,); ``inside`` (rows along y, columns along x): floor; ``taken``, of the
    same shape: floor on which a part of the building stands (built-in cupboards, columns, platforms)."""

    low: Floats
    inside: NDArray[np.bool_]
    bounds: Rect
    taken: NDArray[np.bool_]

    @property
    def area_m2(self) -> float:
        """Floor area."""
        return float(self.inside.sum()) * CELL_M**2

    @property
    def rectangular(self) -> bool:
        """Return whether the free floor fills its bounding rectangle."""
        return float((self.inside & ~self.taken).mean()) >= RECTANGULAR_SHARE

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points (N,2) lie on the floor."""
        cells = np.floor((points - self.low) / CELL_M).astype(np.int64)
        rows, cols = self.inside.shape
        known = (cells >= 0).all(1) & (cells[:, 0] < cols) & (cells[:, 1] < rows)
        found = np.zeros(len(points), dtype=bool)
        found[known] = self.inside[cells[known, 1], cells[known, 0]]
        return found

    def middle(self) -> Floats:
        """The floor cell nearest to the mean of all, (2,) m: on the floor even where a corner is missing."""
        rows, cols = np.nonzero(self.inside)
        centres = self.low + (np.stack([cols, rows], 1) + 0.5) * CELL_M
        return np.asarray(centres[((centres - centres.mean(0)) ** 2).sum(1).argmin()])

    def gaps(self) -> list[Rect]:
        """Rectangles that cover what is not free floor inside the bounds."""
        return self._rectangles(~self.inside | self.taken)

    def built_in(self) -> list[Rect]:
        """Rectangles that cover the floor on which parts of the building stand."""
        return self._rectangles(self.inside & self.taken)

    def _rectangles(self, cells: NDArray[np.bool_]) -> list[Rect]:
        """Rectangles that cover the cells: runs along x, equal ones of following rows joined."""
        open_runs: dict[tuple[int, int], int] = {}
        found = []
        for row in range(len(cells) + 1):
            runs = _runs(cells[row]) if row < len(cells) else []
            for run in [r for r in open_runs if r not in runs]:
                found.append((run[0], open_runs.pop(run), run[1], row))
            for run in runs:
                open_runs.setdefault(run, row)
        x, y = (float(v) for v in self.low)
        return [(x + a * CELL_M, y + b * CELL_M, x + c * CELL_M, y + d * CELL_M) for a, b, c, d in found]


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and past-last column of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def joining(room: HouseRoom, frame: WorldFrame, plan: FloorPlan, finishes: Finishes, tally: Tally) -> list[Solid]:
    """Doors and windows of the house's other rooms that stand on the edge of this room's floor."""
    found = []
    for part, placement in room.openings:
        vertices = frame.points(placement.apply(part.vertices))
        box = np.concatenate([vertices.min(0)[:2], vertices.max(0)[:2]])
        if _landmark(kind_of(part.kind), box, plan) is not None:
            colour = finishes.colour(part.material, placement.name, tally)
            found.append(Solid(kind_of(part.kind), vertices, part.triangles, colour))
    return found


def kind_of(part: str) -> str:
    """Kind of a mesh by the file's type, as the tool box sorts them (by substring), doors and windows kept apart."""
    text = part.lower()
    names = (("ceil", "ceiling"), ("floor", "floor"), ("window", "window"), ("door", "door"), ("wall", "wall"))
    return next((kind for word, kind in names if word in text), "other")


def place_shell(room: HouseRoom, finishes: Finishes, tally: Tally) -> tuple[WorldFrame, list[Solid]] | None:
    """World frame of a room and its building meshes in it; None when the room has no floor, or one without area."""
    solids = [
        Solid(kind_of(p.kind), t.apply(p.vertices) @ Z_UP.T, p.triangles, finishes.colour(p.material, t.name, tally))
        for p, t in room.parts
    ]
    floors = [s for s in solids if s.kind == "floor"]
    if not floors or _area(_floor_triangles(solids)) < CELL_M**2:
        return None
    yaw = _yaw([s for s in solids if s.kind == "wall"])
    turn = np.array([[np.cos(yaw), np.sin(yaw), 0.0], [-np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    floor = np.concatenate([s.vertices[s.triangles].reshape(-1, 3) for s in floors]) @ turn.T
    middle = (floor.min(0) + floor.max(0)) / 2
    shift = -np.array([middle[0], middle[1], np.median(floor[:, 2])])
    turned = [replace(s, vertices=s.vertices @ turn.T + shift) for s in solids]
    return WorldFrame(turn @ Z_UP, shift), turned


def _area(triangles: Floats) -> float:
    """Sum of the areas of triangles (T,3,2)."""
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return float(np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum() / 2)


def _yaw(walls: Sequence[Solid]) -> float:
    """Angle in radians, within 45 degrees of 0, between the walls and the axes; below half a degree it is taken as 0."""
    sines = cosines = 0.0
    for wall in walls:
        a, b, c = (wall.vertices[wall.triangles[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        size = np.linalg.norm(normal, axis=1)
        upright = np.abs(normal[:, 2]) < 0.2 * size
        angle = 4 * np.arctan2(normal[upright, 1], normal[upright, 0])
        sines += float((size[upright] * np.sin(angle)).sum())
        cosines += float((size[upright] * np.cos(angle)).sum())
    yaw = float(np.arctan2(sines, cosines)) / 4
    return yaw if abs(yaw) > np.radians(0.5) else 0.0


def bounds_of(solids: Sequence[Solid]) -> Rect:
    """Bounding rectangle of the floor's triangles."""
    corners = _floor_triangles(solids).reshape(-1, 2)
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return (float(x0), float(y0), float(x1), float(y1))


def _floor_triangles(solids: Sequence[Solid]) -> Floats:
    """Floor triangles (T,3,2) on the plan."""
    return np.concatenate([s.vertices[s.triangles][:, :, :2] for s in solids if s.kind == "floor"])


def plan_of(solids: Sequence[Solid]) -> FloorPlan:
    """Floor plan from the floor's triangles; its memory grows with the area of its bounds."""
    bounds = bounds_of(solids)
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    shape = np.maximum(np.ceil((high - low) / CELL_M - 1e-6).astype(int), 1)
    x, y = (low[k] + (np.arange(shape[k]) + 0.5) * CELL_M for k in (0, 1))
    # The last row and column may reach past the bounds: their cells are judged at the bounds' edge.
    points = np.stack(np.meshgrid(np.minimum(x, high[0] - 1e-6), np.minimum(y, high[1] - 1e-6)), -1).reshape(-1, 2)
    inside, taken = (
        _covered(points, t).reshape(shape[1], shape[0]) for t in (_floor_triangles(solids), _standing_triangles(solids))
    )
    return FloorPlan(low, inside, bounds, taken & inside)


def _standing_triangles(solids: Sequence[Solid]) -> Floats:
    """Triangles (T,3,2) on the plan of the parts that stand in a person's way, less those above the head.

    Parts lower than ``THIN_M`` (skirting boards) are in nobody's way. What is upright covers no cell of a plan.
    """
    found = [np.empty((0, 3, 2))]
    for solid in solids:
        height = solid.vertices[solid.triangles][..., 2]
        if solid.kind in ("wall", "other") and height.min() < HEAD_M and height.max() > THIN_M:
            found.append(solid.vertices[solid.triangles[height.min(1) < HEAD_M]][:, :, :2])
    return np.concatenate(found)


def _covered(points: Floats, triangles: Floats) -> NDArray[np.bool_]:
    """Return which points (N,2) of a grid lie in any of the triangles (T,3,2)."""
    found = np.zeros(len(points), dtype=bool)
    near = np.ones(len(triangles), dtype=bool)
    for axis in (0, 1):  # most triangles of fine meshes hold no point of the grid
        lines = np.unique(points[:, axis])
        first = np.searchsorted(lines, triangles[..., axis].min(1) - 1e-9)
        near &= np.searchsorted(lines, triangles[..., axis].max(1) + 1e-9, side="right") > first
    for triangle in triangles[near]:
        found |= _in_triangle(points, triangle)
    return found


def _in_triangle(points: Floats, triangle: Floats) -> NDArray[np.bool_]:
    """Return which points (N,2) lie in a triangle (3,2), its edges included; none in one without area."""
    sides = []
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        sides.append((b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0]))
    side = np.stack(sides)
    one, two = triangle[1] - triangle[0], triangle[2] - triangle[0]
    area = float(one[0] * two[1] - one[1] * two[0])
    return np.asarray(((side >= -1e-9).all(0) | (side <= 1e-9).all(0)) & (abs(area) > 1e-9))


def height_of(solids: Sequence[Solid]) -> float:
    """Height in metres up to which nothing of the building is overhead: the lowest ceiling, else the top of the walls."""
    lowest = [float(s.vertices[:, 2].min()) for s in solids if s.kind == "ceiling"]
    tops = [float(s.vertices[:, 2].max()) for s in solids if s.kind == "wall"]
    heights = [z for z in lowest if z > HEAD_M] or [z for z in tops if z > HEAD_M]
    return min(heights, default=CEILING_M)


def landmarks_of(solids: Sequence[Solid], plan: FloorPlan) -> tuple[Landmark, ...]:
    """Doors and windows on the edge of the floor; meshes that touch each other are one."""
    found = []
    for kind in ("door", "window"):
        boxes: list[Floats] = []
        for solid in (s for s in solids if s.kind == kind):
            box = np.concatenate([solid.vertices.min(0)[:2], solid.vertices.max(0)[:2]])
            touching = [b for b in boxes if (b[:2] <= box[2:] + 0.1).all() and (box[:2] <= b[2:] + 0.1).all()]
            boxes = [b for b in boxes if not any(b is t for t in touching)]
            together = np.stack([box, *touching])
            boxes.append(np.concatenate([together[:, :2].min(0), together[:, 2:].max(0)]))
        found += [mark for box in boxes if (mark := _landmark(kind, box, plan)) is not None]
    return tuple(found)


def _landmark(kind: str, box: Floats, plan: FloorPlan) -> Landmark | None:
    """A door or window from its footprint (4,); None when exactly one of its sides is not this room's floor."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    thin = int(size.argmin())
    ahead = np.zeros(2)
    ahead[thin] = 1.0
    reach = size[thin] / 2 + 0.35
    front, back = plan.contains(np.stack([centre + ahead * reach, centre - ahead * reach]))
    if front == back or size.max() < 0.3:
        return None
    normal = ahead if front else -ahead
    return Landmark(kind, (float(centre[0]), float(centre[1])), (float(normal[0]), float(normal[1])), float(size[1 - thin]))


def shell_mesh(scene_id: str, solids: Sequence[Solid]) -> Mesh:
    """All building meshes in their own colours; the others' are drawn per room from the palettes of the built-in rooms."""
    rng = np.random.default_rng(seed_for("front3d", "palette", scene_id))
    wall, floor = WALLS[int(rng.integers(len(WALLS)))], FLOORS[int(rng.integers(len(FLOORS)))]
    looks = {
        "floor": (floor, PLANKS), "wall": (wall, PLAIN), "ceiling": ((0.80, 0.80, 0.79), PLAIN),
        "door": ((0.50, 0.38, 0.25), PLAIN), "window": ((0.80, 0.92, 1.0), EMISSIVE), "other": ((0.70, 0.69, 0.67), PLAIN),
    }  # fmt: skip
    parts = []
    for solid in sorted(solids, key=lambda s: s.kind != "floor"):
        colour, surface = looks[solid.kind]
        if solid.colour is not None and solid.kind != "window":
            colour = solid.colour
        count = len(solid.triangles)
        parts.append(Mesh(solid.vertices, solid.triangles, np.tile(colour, (count, 1)), np.full(count, surface)))
    return merge(parts)
