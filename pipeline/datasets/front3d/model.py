"""Models of 3D-FUTURE: ``<jid>/raw_model.obj`` and ``texture.png``, categories from ``model_info.json``; in a bounded cache.

Local frame of a model: metres, y up, front towards +z.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.datasets.front3d.wavefront import read_obj
from pipeline.datasets.front3d.words import main_colour

Floats = NDArray[np.float64]
TEXTURE_PX = 512
"""Longest edge of a texture in memory; a picture of a room shows it much smaller."""
CACHE_BYTES = 512 * 2**20
"""Models that a worker keeps; the least recently used go first."""
PLAIN = (0.62, 0.60, 0.57)
"""Albedo of a model without a texture: its colour is called gray."""
_WITHIN = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array([[3], [6], [6], [6]])
"""Places in a triangle where its colour is taken."""


@dataclass(frozen=True, slots=True)
class Model:
    """``vertices`` (N,3) m, ``triangles`` (T,3), ``albedo`` (T,3) in [0,1], ``uv`` (T,3,2) and ``texture`` uint8 (h,w,3) or
    None; ``colour`` its name; ``category`` and ``super_category`` of the model list ("" when it is not in the list)."""

    vertices: Floats
    triangles: NDArray[np.int64]
    albedo: Floats
    uv: NDArray[np.float32] | None
    texture: NDArray[np.uint8] | None
    colour: str
    category: str
    super_category: str

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        arrays = (self.vertices, self.triangles, self.albedo, self.uv, self.texture)
        return sum(a.nbytes for a in arrays if a is not None)


class ModelStore:
    """Models of a folder by id."""

    def __init__(self, root: Path, limit: int = CACHE_BYTES):
        self.root, self.limit = root, limit
        self.held = 0
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._info = read_model_list(root / "model_info.json")

    def has(self, jid: str) -> bool:
        """Return whether the release holds the model."""
        return jid in self._models or (self.root / jid / "raw_model.obj").is_file()

    def get(self, jid: str) -> Model:
        """The model; DataError when its files are missing or damaged."""
        if jid in self._models:
            self._models.move_to_end(jid)
            return self._models[jid]
        model = self._read(jid)
        self._models[jid] = model
        self.held += model.bytes
        while self.held > self.limit and len(self._models) > 1:
            self.held -= self._models.popitem(last=False)[1].bytes
        return model

    def _read(self, jid: str) -> Model:
        folder = self.root / jid
        vertices, triangles, uv = read_obj(folder / "raw_model.obj")
        picture = folder / "texture.png"
        texture = read_picture(picture, TEXTURE_PX) if uv is not None and picture.is_file() else None
        albedo, colour = _colours(vertices, triangles, uv, texture)
        own = folder / "model_info.json"
        category, super_category = self._info.get(jid) or (_read_own(own) if own.is_file() else ("", ""))
        return Model(vertices, triangles, albedo, None if texture is None else uv, texture, colour, category, super_category)


def read_model_list(path: Path) -> dict[str, tuple[str, str]]:
    """Model id -> (category, super-category) of the release's list; empty when there is no list."""
    if not path.is_file():
        return {}
    content = _json(path)
    if not isinstance(content, list) or not all(isinstance(e, dict) and isinstance(e.get("model_id"), str) for e in content):
        raise DataError(f"{path} is not a list of models", allowed='[{"model_id": .., "super-category": .., "category": ..}]')
    return {entry["model_id"]: _names(entry) for entry in content}


def _read_own(path: Path) -> tuple[str, str]:
    content = _json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a JSON object")
    return _names(content)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})", fix="download the file again") from None


def _names(entry: dict[str, Any]) -> tuple[str, str]:
    """Category and super-category; the release has null for some."""
    category, group = entry.get("category"), entry.get("super-category")
    return category if isinstance(category, str) else "", group if isinstance(group, str) else ""


def read_picture(path: Path, longest_px: int) -> NDArray[np.uint8]:
    """A picture (h,w,3) of at most ``longest_px``. DataError, naming the file, when it is missing or damaged."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (longest_px, longest_px))
            small = image.convert("RGB")
            small.thumbnail((longest_px, longest_px))
            return np.array(small, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error})", fix="download the model again") from None


def sample(texture: NDArray[np.uint8], uv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Colours (N,3) in [0,1] of a texture at coordinates (N,2), which repeat outside 0..1; v runs upwards."""
    height, width = texture.shape[:2]
    u, v = uv[:, 0] % 1.0, (1.0 - uv[:, 1]) % 1.0
    rows, cols = (v * height).astype(np.int64) % height, (u * width).astype(np.int64) % width
    return texture[rows, cols].astype(np.float32) / np.float32(255)


def _colours(
    vertices: Floats, triangles: NDArray[np.int64], uv: NDArray[np.float32] | None, texture: NDArray[np.uint8] | None
) -> tuple[Floats, str]:
    """Albedo per triangle (T,3), and the name of the colour that most of the surface has."""
    if uv is None or texture is None:
        return np.tile(PLAIN, (len(triangles), 1)), main_colour(np.array([PLAIN]), np.ones(1))
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    places = np.einsum("pk,tkc->tpc", _WITHIN, uv.astype(np.float64))
    colours = sample(texture, places.reshape(-1, 2)).astype(np.float64)
    name = main_colour(colours, np.repeat(area + 1e-12, len(_WITHIN)))
    return colours.reshape(-1, len(_WITHIN), 3).mean(1), name
