"""Ray casting of a room: distance along the optical axis, instance ids, and shaded colour.

Rays have z = 1 in the camera frame, so that the hit distance *is* the depth. Colour is albedo x (ambient + lamp with cast
shadows + a little light from the camera), enough to read shapes from shading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from pipeline.datasets._film.mesh import EMISSIVE, GRAIN, PLAIN, PLANKS, Colour, Mesh, block, merge
from pipeline.datasets._film.room import Opening, Room

if TYPE_CHECKING:
    import open3d as o3d

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

BACKGROUND = -1
"""Instance id of walls, floor, ceiling, doors and windows."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """``depth_m`` (V,H,W) true depth; ``instance`` (V,H,W) object ids or BACKGROUND; ``rgb`` float (V,H,W,3) in [0,1];
    ``facing`` (V,H,W) cosine between ray and surface normal; ``glass`` (V,H,W): light through a window, no depth."""

    depth_m: Singles
    instance: NDArray[np.int32]
    rgb: Singles
    facing: Singles
    glass: NDArray[np.bool_]


class MeshRenderer:
    """The ray-casting scene of meshes that belong to ``owners`` (object ids or BACKGROUND) under a lamp at ``light`` (3,).

    The first mesh is the room's shell.
    """

    def __init__(self, meshes: Sequence[Mesh], owners: Sequence[int], light: Sequence[float]):
        whole = merge(meshes)
        self.albedo = whole.albedo.astype(np.float32)
        self.surface = whole.surface
        self.owner = np.repeat(np.array(owners, dtype=np.int32), [len(m.triangles) for m in meshes])
        self.light = np.array(light, dtype=np.float32)
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(_tensor(whole.vertices.astype(np.float32)), _tensor(whole.triangles.astype(np.uint32)))

    def ids(self, poses: Floats, matrix: Floats, size: tuple[int, int]) -> tuple[NDArray[np.int32], Singles]:
        """Instance ids (V,H,W) and hit points (V,H,W,3) only: the cheap pass that chooses views."""
        rays = _rays(poses, matrix, size)
        hit = self._cast(rays)
        distance = hit["t_hit"].numpy()
        points = rays[..., :3] + np.where(np.isfinite(distance), distance, 0)[..., None] * rays[..., 3:]
        return self.owner[self._primitive(hit)], points.astype(np.float32)

    def render(self, poses: Floats, matrix: Floats, size: tuple[int, int]) -> Rendering:
        """All channels of views (V,4,4) at ``size`` (height, width); one view at a time stays in the processor's cache."""
        views = [self._view(pose[None], matrix, size) for pose in poses]
        depth, instance, rgb, facing, glass = (np.concatenate(channel) for channel in zip(*views, strict=True))
        return Rendering(depth, instance, rgb, facing, glass)

    def _view(
        self, pose: Floats, matrix: Floats, size: tuple[int, int]
    ) -> tuple[Singles, NDArray[np.int32], Singles, Singles, NDArray[np.bool_]]:
        """Channels of one view (1,4,4) in the order of ``Rendering``."""
        rays = _rays(pose, matrix, size)
        hit = self._cast(rays)
        primitive = self._primitive(hit)
        depth: Singles = hit["t_hit"].numpy()
        depth[~np.isfinite(depth)] = 0
        origin, direction = rays[..., :3], rays[..., 3:]
        points = (origin + depth[..., None] * direction).astype(np.float32, copy=False)
        normals: Singles = hit["primitive_normals"].numpy()
        towards = -_dot(normals, direction)
        normals *= np.sign(towards)[..., None]
        facing = (np.abs(towards) / np.sqrt(_dot(direction, direction))).astype(np.float32, copy=False)
        rgb = self._albedo_at(points, primitive, hit["primitive_uvs"].numpy())
        rgb *= self._light_at(points, normals, facing)[..., None]
        glass = self.surface[primitive] == EMISSIVE
        rgb[glass] = self.albedo[primitive[glass]]
        return depth, self.owner[primitive], np.clip(rgb, 0, 1), facing, glass

    def _cast(self, rays: Singles) -> dict[str, o3d.core.Tensor]:
        result: dict[str, o3d.core.Tensor] = self._scene.cast_rays(_tensor(rays), nthreads=1)
        return result

    def _primitive(self, hit: dict[str, o3d.core.Tensor]) -> NDArray[np.int64]:
        """Triangle numbers; a ray that hits nothing (it cannot, in a closed room) counts as triangle 0 of the shell."""
        primitive = hit["primitive_ids"].numpy()
        return np.where(primitive < len(self.owner), primitive, 0).astype(np.int64)

    def _albedo_at(self, points: Singles, primitive: NDArray[np.int64], within: Singles) -> Singles:
        """Albedo with planks on the floor and a faint grain on wood; ``within`` (...,2) is the place in the triangle."""
        albedo: Singles = self.albedo[primitive]
        surface = self.surface[primitive]
        floor, wood = surface == PLANKS, surface == GRAIN
        x, y, _ = points[floor].T
        plank = np.floor(x / 0.16)
        albedo[floor] *= (1 + 0.05 * np.sin(plank * 12.9898) + 0.03 * np.sin(y * 9.0 + plank * 4.1))[:, None]
        x, y, z = points[wood].T
        albedo[wood] *= (1 + 0.025 * np.sin(z * 31.0 + 3.0 * np.sin((x + y) * 5.0)))[:, None]
        return albedo

    def _light_at(self, points: Singles, normals: Singles, facing: Singles) -> Singles:
        """Brightness of each hit point: ambient from above, the lamp where nothing is in its way, a little from the eye."""
        towards = self.light - points
        squared = _dot(towards, towards)
        lambert = np.maximum(_dot(normals, towards) / np.sqrt(np.maximum(squared, 1e-6)), 0)
        shadow = np.empty((*points.shape[:-1], 6), dtype=np.float32)
        shadow[..., :3] = points + np.float32(0.01) * normals
        shadow[..., 3:] = self.light - shadow[..., :3]
        blocked = self._scene.test_occlusions(_tensor(shadow), 0.0, 0.97, nthreads=1).numpy()
        lamp = lambert * np.where(blocked, np.float32(0.35), np.float32(1.0)) / (1 + np.float32(0.02) * squared)
        light: Singles = 0.45 + 0.05 * normals[..., 2] + 0.42 * lamp + 0.20 * facing
        return light


class Renderer(MeshRenderer):
    """The ray-casting scene of one room."""

    def __init__(self, room: Room):
        x0, y0, x1, y1 = room.bounds
        light = ((x0 + x1) / 2, (y0 + y1) / 2, room.height - 0.15)
        owners = [BACKGROUND, *(item.object_id for item in room.items)]
        super().__init__([_shell(room), *(item.mesh for item in room.items)], owners, light)


def _tensor(array: Any) -> o3d.core.Tensor:
    """A numpy array for Open3D."""
    return o3d.core.Tensor.from_numpy(array)


def _dot(a: Singles, b: Singles) -> Singles:
    """Scalar products along the last axis."""
    products: Singles = np.einsum("...i,...i->...", a, b)
    return products


def _rays(poses: Floats, matrix: Floats, size: tuple[int, int]) -> Singles:
    """Rays (V,H,W,6) through pixel centres; directions have z = 1 in the camera frame."""
    height, width = size
    x = (np.arange(width) - matrix[0, 2]) / matrix[0, 0]
    y = (np.arange(height) - matrix[1, 2]) / matrix[1, 1]
    local = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1).reshape(-1, 3).astype(np.float32)
    rays = np.empty((len(poses), height, width, 6), dtype=np.float32)
    for view, pose in enumerate(poses):
        rays[view, ..., :3] = pose[:3, 3]
        rays[view, ..., 3:] = (local @ pose[:3, :3].T.astype(np.float32)).reshape(height, width, 3)
    return rays


def _shell(room: Room) -> Mesh:
    """Floor, ceiling, walls with skirting, pillar, doors and windows."""
    x0, y0, x1, y1 = room.bounds
    h, wall = room.height, room.wall_colour
    skirting = tuple(min(1.0, c * 0.72) for c in wall)
    parts = [
        block((x0, x1), (y0, y1), (-0.05, 0.0), room.floor_colour, PLANKS),
        block((x0, x1), (y0, y1), (h, h + 0.05), (0.80, 0.80, 0.79)),
    ]
    for index in range(4):
        length = room.wall_length(index)
        parts.append(_on_wall(room, index, (0.0, length), (-0.1, 0.0), (0.0, h), wall))
        parts.append(_on_wall(room, index, (0.0, length), (0.0, 0.012), (0.0, 0.09), skirting))
    if room.pillar:
        a, b, c, d = room.pillar
        parts.append(block((a, c), (b, d), (0.0, h), wall))
    for opening in room.openings:
        parts += _opening(room, opening)
    return merge(parts)


def _on_wall(
    room: Room,
    wall: int,
    along: tuple[float, float],
    off: tuple[float, float],
    z: tuple[float, float],
    colour: Colour,
    surface: int = PLAIN,
) -> Mesh:
    """A block given along a wall and away from it."""
    a, b = room.wall_point(wall, along[0], off[0]), room.wall_point(wall, along[1], off[1])
    return block(sorted((a[0], b[0])), sorted((a[1], b[1])), z, colour, surface)


def _opening(room: Room, opening: Opening) -> list[Mesh]:
    """A door with frame, leaf and handle, or a window with frame, cross bar and bright glass."""
    a, b = opening.along - opening.width / 2, opening.along + opening.width / 2
    low, high = opening.z
    wall = opening.wall
    if opening.kind == "door":
        return [
            _on_wall(room, wall, (a - 0.07, b + 0.07), (0.0, 0.03), (low, high + 0.07), (0.34, 0.25, 0.17)),
            _on_wall(room, wall, (a, b), (0.03, 0.045), (low, high), (0.58, 0.45, 0.31), GRAIN),
            _on_wall(room, wall, (a + 0.14, b - 0.14), (0.045, 0.055), (1.15, 1.85), (0.50, 0.38, 0.25)),
            _on_wall(room, wall, (a + 0.14, b - 0.14), (0.045, 0.055), (0.25, 0.95), (0.50, 0.38, 0.25)),
            _on_wall(room, wall, (b - 0.14, b - 0.05), (0.045, 0.10), (1.0, 1.05), (0.75, 0.72, 0.62)),
        ]
    middle = (a + b) / 2
    frame, glass = (0.88, 0.88, 0.86), (0.80, 0.92, 1.0)
    return [
        _on_wall(room, wall, (a - 0.06, b + 0.06), (0.0, 0.03), (low - 0.06, high + 0.06), frame),
        _on_wall(room, wall, (a, b), (0.03, 0.034), (low, high), glass, EMISSIVE),
        _on_wall(room, wall, (middle - 0.025, middle + 0.025), (0.034, 0.05), (low, high), frame),
        _on_wall(room, wall, (a - 0.1, b + 0.1), (0.0, 0.10), (low - 0.09, low - 0.06), frame),
    ]
