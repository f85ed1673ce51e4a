"""Ray casting of a 3D-FRONT room: the rooms' renderer with textures, and sky where the building is open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.render import BACKGROUND, MeshRenderer
from pipeline.datasets.front3d.assemble import FrontRoom
from pipeline.datasets.front3d.model import sample

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
SKY = (0.80, 0.90, 0.98)


class FrontRenderer(MeshRenderer):
    """The ray-casting scene of one room."""

    def __init__(self, room: FrontRoom):
        meshes = [room.shell, *(s.mesh for s in room.scenery), *(i.mesh for i in room.items)]
        paints = [None, *(s.paint for s in room.scenery), *room.paints]
        owners = [BACKGROUND, *(BACKGROUND for _ in room.scenery), *(i.object_id for i in room.items)]
        super().__init__(meshes, owners, room.light())
        self._paints = paints
        counts = [len(m.triangles) for m in meshes]
        self._mesh = np.repeat(np.arange(len(meshes)), counts)
        self._first = np.concatenate([[0], np.cumsum(counts)])

    def _view(
        self, pose: Floats, matrix: Floats, size: tuple[int, int]
    ) -> tuple[Singles, NDArray[np.int32], Singles, Singles, NDArray[np.bool_]]:
        """As the base; a ray that leaves the building sees the sky, which has no depth."""
        depth, owner, rgb, facing, glass = super()._view(pose, matrix, size)
        missed = depth <= 0
        rgb[missed] = SKY
        return depth, np.where(missed, np.int32(BACKGROUND), owner), rgb, facing, glass | missed

    def _albedo_at(self, points: Singles, primitive: NDArray[np.int64], within: Singles) -> Singles:
        """Colours of the textures where there are any."""
        albedo = super()._albedo_at(points, primitive, within)
        hit = self._mesh[primitive]
        for number in np.unique(hit):
            paint = self._paints[number]
            if paint is None:
                continue
            here = hit == number
            corners = paint.uv[primitive[here] - self._first[number]]
            u, v = within[here][:, :1], within[here][:, 1:]
            places = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
            albedo[here] = sample(paint.texture, places)
        return albedo
