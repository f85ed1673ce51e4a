"""Colours of walls, floors and other parts of the building: a house file's materials, and the mean colour of their textures.

A material has a plain ``color`` (0 to 255), or a ``texture`` whose picture is ``<jid>/texture.png`` of the release's
``3D-FRONT-texture.zip``. Of a texture only the mean colour is taken: nothing that is asked is about walls or floors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import DataError
from pipeline.datasets.front3d.faults import Tally
from pipeline.datasets.front3d.model import read_picture
from pipeline.scenes.conventions import checked_id

Colour = tuple[float, float, float]
REFLECTS = 0.85
"""What white paint reflects: colours are scaled by it, so that light walls keep their shading."""
SMALL_PX = 64
"""Longest edge to which a texture is reduced before its mean is taken."""


@dataclass(frozen=True, slots=True)
class Material:
    """``colour``: sRGB in [0,1], None when the file says none; ``texture``: id of its picture, "" for none."""

    uid: str
    colour: Colour | None
    texture: str


def read_materials(content: Mapping[str, Any]) -> dict[str, Material]:
    """Materials of a house file by uid. What is not usable is left out: such parts get plain colours."""
    entries = content.get("material")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        uid = entry.get("uid") if isinstance(entry, dict) else None
        if isinstance(uid, str) and uid:
            found[uid] = Material(uid, _colour(entry.get("color")), _texture_id(entry))
    return found


def _colour(value: Any) -> Colour | None:
    """Three or four numbers from 0 to 255 as sRGB in [0,1]; None when it is not that."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if numbers.shape not in ((3,), (4,)) or not ((numbers >= 0) & (numbers <= 255)).all():
        return None
    red, green, blue = (numbers[:3] / 255).tolist()
    return (red, green, blue)


def _texture_id(entry: Mapping[str, Any]) -> str:
    """``jid`` of a material with a texture, safe as a path part; "" otherwise."""
    if not entry.get("texture"):
        return ""
    try:
        return checked_id(entry.get("jid"), what="texture id", where="material")
    except DataError:
        return ""


class Finishes:
    """Colours of materials; mean colours of textures are read once. ``root`` None: there are no texture files."""

    def __init__(self, root: Path | None):
        self.root = root
        self._means: dict[str, Colour | str] = {}

    def colour(self, material: Material | None, where: str, tally: Tally) -> Colour | None:
        """Albedo of a part with this material; None for a plain colour of the palette. Missing textures go to ``tally``."""
        if material is None:
            return None
        seen: Colour | str | None = material.colour
        if material.texture:
            seen = self._mean(material.texture) if self.root is not None else None
        if isinstance(seen, str):
            tally.fault("texture of the building that cannot be read", seen, where)
            return None
        return None if seen is None else (REFLECTS * seen[0], REFLECTS * seen[1], REFLECTS * seen[2])

    def _mean(self, jid: str) -> Colour | str:
        """Mean colour of a texture, or what is wrong with it."""
        if jid not in self._means and self.root is not None:
            try:
                red, green, blue = (read_picture(self.root / jid / "texture.png", SMALL_PX).mean((0, 1)) / 255).tolist()
                self._means[jid] = (red, green, blue)
            except DataError as error:
                self._means[jid] = error.what
        return self._means[jid]
