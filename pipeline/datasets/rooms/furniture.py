"""Furniture from parts. Every builder gives a mesh centred on the floor (x, y), front towards +y, true sizes in metres.

Shapes are kept apart in silhouette and size, so that they are told apart in a 64 x 64 picture: legs and backs, arms,
drawers, shelves with books, shades, leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.datasets._film.mesh import GRAIN, Colour, Mesh, ball, block, frustum, merge

WOOD, METAL, DARK, LINEN, CARD, LEAF = (
    (0.45, 0.33, 0.22),
    (0.55, 0.56, 0.58),
    (0.13, 0.12, 0.12),
    (0.86, 0.84, 0.79),
    (0.72, 0.60, 0.44),
    (0.24, 0.38, 0.13),
)
BOOKS = ((0.45, 0.30, 0.26), (0.33, 0.40, 0.36), (0.62, 0.56, 0.44), (0.36, 0.36, 0.46), (0.60, 0.58, 0.56))


@dataclass(frozen=True, slots=True)
class Style:
    """``main`` colour (with its jitter), a generator for the sizes, and whether the small version is wanted."""

    main: Colour
    rng: np.random.Generator
    small: bool = False

    def size(self, low: float, high: float) -> float:
        """A size drawn between two limits, in metres."""
        return float(self.rng.uniform(low, high))

    def shade(self, factor: float) -> Colour:
        """The main colour made darker (< 1) or lighter (> 1)."""
        return tuple(float(np.clip(c * factor, 0, 1)) for c in self.main)


def _legs(width: float, depth: float, height: float, thick: float, colour: Colour) -> list[Mesh]:
    x, y = width / 2, depth / 2
    return [
        block((sx * x - (sx > 0) * thick, sx * x + (sx < 0) * thick), (sy * y - (sy > 0) * thick, sy * y + (sy < 0) * thick),
              (0, height), colour)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]  # fmt: skip


def chair(s: Style) -> Mesh:
    w, d, seat, top = s.size(0.44, 0.52), s.size(0.45, 0.52), s.size(0.44, 0.48), s.size(0.92, 1.04)
    parts = _legs(w, d, seat - 0.05, 0.05, s.rng.choice([WOOD, METAL, DARK]))
    parts.append(block((-w / 2, w / 2), (-d / 2, d / 2), (seat - 0.06, seat), s.main))
    parts.append(block((-w / 2, w / 2), (-d / 2, -d / 2 + 0.05), (seat + 0.12, top), s.main, GRAIN))
    parts += [block((x, x + 0.05), (-d / 2, -d / 2 + 0.05), (seat, seat + 0.12), s.shade(0.7)) for x in (-w / 2, w / 2 - 0.05)]
    return merge(parts)


def stool(s: Style) -> Mesh:
    r, h = s.size(0.18, 0.22), s.size(0.50, 0.66)
    legs = [m.moved(np.pi / 4, (0, 0, 0)) for m in _legs(1.35 * r, 1.35 * r, h - 0.06, 0.04, METAL)]
    return merge([frustum((0, 0), (h - 0.08, h), (r, r), s.main), frustum((0, 0), (0.18, 0.21), (r, r), METAL), *legs])


def table(s: Style) -> Mesh:
    h = s.size(0.70, 0.76)
    if s.rng.random() < 0.5:
        r = s.size(0.45, 0.62)
        return merge(
            [
                frustum((0, 0), (h - 0.06, h), (r, r), s.main, sides=16),
                frustum((0, 0), (0.04, h - 0.06), (0.06, 0.06), s.shade(0.75), sides=8),
                frustum((0, 0), (0, 0.04), (0.6 * r, 0.55 * r), s.shade(0.75)),
            ]
        )
    w, d = s.size(1.1, 1.5), s.size(0.7, 0.9)
    top = block((-w / 2, w / 2), (-d / 2, d / 2), (h - 0.06, h), s.main, GRAIN)
    return merge([top, *_legs(w - 0.06, d - 0.06, h - 0.06, 0.08, s.shade(0.75))])


def desk(s: Style) -> Mesh:
    w, d, h = s.size(1.1, 1.45), s.size(0.58, 0.68), s.size(0.72, 0.77)
    right = w / 2 - 0.42
    parts = [
        block((-w / 2, w / 2), (-d / 2, d / 2), (h - 0.05, h), s.main, GRAIN),
        block((-w / 2, -w / 2 + 0.05), (-d / 2 + 0.02, d / 2 - 0.04), (0, h - 0.05), s.shade(0.85)),
        block((right, w / 2), (-d / 2 + 0.02, d / 2 - 0.04), (0.04, h - 0.05), s.shade(0.85)),
        block((-w / 2, w / 2), (-d / 2 + 0.02, -d / 2 + 0.05), (0.25, h - 0.05), s.shade(0.7)),
    ]
    for i in range(3):
        z = 0.09 + i * 0.2
        parts.append(block((right + 0.03, w / 2 - 0.03), (d / 2 - 0.04, d / 2 - 0.025), (z, z + 0.16), s.shade(1.05)))
        parts.append(block((right + 0.14, w / 2 - 0.14), (d / 2 - 0.025, d / 2), (z + 0.07, z + 0.1), METAL))
    return merge(parts)


def bed(s: Style) -> Mesh:
    w, d, head = s.size(1.0, 1.6), s.size(1.95, 2.1), s.size(0.85, 1.05)
    x, y = w / 2, d / 2
    parts = [
        block((-x, x), (-y, y), (0.08, 0.32), s.shade(0.75)),
        block((-x, x), (-y, -y + 0.07), (0, head), s.main, GRAIN),
        block((-x + 0.03, x - 0.03), (-y + 0.07, y - 0.03), (0.32, 0.50), LINEN),
        block((-x + 0.01, x - 0.01), (-y + 0.65, y - 0.01), (0.26, 0.54), s.main),
        *_legs(w, d, 0.08, 0.08, DARK),
    ]
    pillows = 2 if w > 1.3 else 1
    for i in range(pillows):
        centre = -x + w * (2 * i + 1) / (2 * pillows)
        parts.append(block((centre - 0.27, centre + 0.27), (-y + 0.14, -y + 0.5), (0.50, 0.60), (0.95, 0.94, 0.92)))
    return merge(parts)


def sofa(s: Style) -> Mesh:
    w, d = s.size(1.6, 2.1), s.size(0.80, 0.92)
    x, y, arm = w / 2, d / 2, 0.18
    half = (w - 2 * arm) / 2
    parts = [
        block((-x, x), (-y, y - 0.02), (0.08, 0.30), s.shade(0.75)),
        block((-x, x), (-y, -y + 0.22), (0.30, s.size(0.80, 0.88)), s.main),
        block((-x, -x + arm), (-y, y), (0.08, 0.62), s.shade(0.92)),
        block((x - arm, x), (-y, y), (0.08, 0.62), s.shade(0.92)),
        *_legs(w, d, 0.08, 0.08, DARK),
    ]
    for i in range(2):
        left = -x + arm + i * half
        parts.append(block((left + 0.015, left + half - 0.015), (-y + 0.22, y - 0.01), (0.30, 0.45), s.main))
    return merge(parts)


def bookshelf(s: Style) -> Mesh:
    w, d, h, rows = s.size(0.75, 1.1), s.size(0.28, 0.34), s.size(1.55, 1.95), 5
    x, y, t = w / 2, d / 2, 0.045
    parts = [
        block((-x, -x + t), (-y, y), (0, h), s.main),
        block((x - t, x), (-y, y), (0, h), s.main),
        block((-x, x), (-y, -y + 0.02), (0, h), s.shade(0.6)),
    ]
    pitch = (h - t) / rows
    for i in range(rows + 1):
        parts.append(block((-x, x), (-y, y), (i * pitch, i * pitch + t), s.main))
    for i in range(rows):
        at, end = -x + t, float(s.rng.uniform(-0.1, 1.0)) * (x - t)
        while at < end:
            thick, tall = float(s.rng.uniform(0.09, 0.16)), float(s.rng.uniform(0.6, 0.85)) * (pitch - t)
            stop = min(at + thick, x - t)
            colour = BOOKS[int(s.rng.integers(len(BOOKS)))]
            parts.append(block((at, stop - 0.006), (-y + 0.02, y - 0.06), (i * pitch + t, i * pitch + t + tall), colour))
            at = stop
    return merge(parts)


def _doors(s: Style, w: float, d: float, z: tuple[float, float], handle: tuple[float, float]) -> list[Mesh]:
    """A closed body with two door leaves, a dark gap between them, and handles; the top is a little lighter."""
    body, leaf = d / 2 - 0.03, d / 2 - 0.012
    parts = [
        block((-w / 2, w / 2), (-d / 2, body), z, s.shade(0.85)),
        block((-w / 2, w / 2), (-d / 2, leaf), (z[1], z[1] + 0.02), s.main),
        block((-0.02, 0.02), (body, body + 0.004), (z[0] + 0.02, z[1] - 0.01), DARK),
    ]
    for left, knob in ((-w / 2 + 0.012, -0.08), (0.018, 0.05)):
        parts.append(block((left, left + w / 2 - 0.03), (body, leaf), (z[0] + 0.02, z[1] - 0.015), s.main))
        parts.append(block((knob, knob + 0.03), (leaf, leaf + 0.024), handle, METAL))
    return parts


def cabinet(s: Style) -> Mesh:
    w, d, h = s.size(0.85, 1.25), s.size(0.40, 0.48), s.size(0.75, 0.95)
    return merge([*_doors(s, w, d, (0.12, h - 0.02), (h * 0.5, h * 0.5 + 0.12)), *_legs(w, d - 0.03, 0.12, 0.05, DARK)])


def wardrobe(s: Style) -> Mesh:
    w, d, h = s.size(1.0, 1.3), s.size(0.55, 0.62), s.size(1.9, 2.1)
    return merge(
        [*_doors(s, w, d, (0.06, h - 0.02), (0.85, 1.25)), block((-w / 2, w / 2), (-d / 2, d / 2 - 0.05), (0, 0.06), DARK)]
    )


def nightstand(s: Style) -> Mesh:
    w, d, h = s.size(0.42, 0.5), s.size(0.38, 0.42), s.size(0.50, 0.58)
    parts = [
        block((-w / 2, w / 2), (-d / 2, d / 2 - 0.02), (0.16, h), s.shade(0.7)),
        block((-w / 2, w / 2), (-d / 2, d / 2), (h - 0.03, h), s.main),
        *_legs(w, d - 0.02, 0.16, 0.05, WOOD),
    ]
    for z in (0.18, 0.34):
        parts.append(block((-w / 2 + 0.02, w / 2 - 0.02), (d / 2 - 0.02, d / 2 - 0.005), (z, z + 0.13), s.main))
        parts.append(block((-0.05, 0.05), (d / 2 - 0.005, d / 2 + 0.012), (z + 0.05, z + 0.08), METAL))
    return merge(parts)


def lamp(s: Style) -> Mesh:
    h = s.size(0.40, 0.50) if s.small else s.size(1.35, 1.6)
    shade, r = (0.20, s.size(0.13, 0.16)) if s.small else (0.32, s.size(0.21, 0.26))
    foot = 0.08 if s.small else 0.16
    return merge(
        [
            frustum((0, 0), (0, 0.03), (foot, foot), DARK, sides=8),
            frustum((0, 0), (0.03, h - shade * 0.5), (0.018, 0.018), METAL, sides=6),
            frustum((0, 0), (h - shade, h), (r, 0.6 * r), s.main),
        ]
    )


def plant(s: Style) -> Mesh:
    pot, r = (s.size(0.13, 0.16), s.size(0.09, 0.11)) if s.small else (s.size(0.30, 0.40), s.size(0.17, 0.22))
    crown = s.size(0.20, 0.26) if s.small else s.size(0.50, 0.75)
    parts = [
        frustum((0, 0), (0, pot), (0.75 * r, r), s.main),
        frustum((0, 0), (pot, pot + 0.45 * crown), (0.025, 0.02), WOOD, sides=5),
    ]
    tone = s.rng.uniform(0.85, 1.15)
    for k in range(3 if s.small else 5):
        angle, away = 2.4 * k + s.rng.uniform(0, 0.8), crown * 0.28
        shade = s.rng.uniform(0.85, 1.15)
        at = (away * np.cos(angle), away * np.sin(angle), pot + crown * s.rng.uniform(0.4, 0.75))
        parts.append(ball(at, (0.30 * crown, 0.30 * crown, 0.26 * crown), tuple(c * tone * shade for c in LEAF)))
    return merge(parts)


def box(s: Style) -> Mesh:
    low, high = (0.22, 0.30) if s.small else (0.36, 0.55)
    x, y, h = s.size(low, high) / 2, s.size(low, high) / 2, s.size(low, high)
    tape = 0.16 * x
    return merge(
        [
            block((-x, x), (-y, y), (0, h), s.main),
            block((-tape, tape), (-y - 0.003, y + 0.003), (0.6 * h, h + 0.003), CARD),
        ]
    )


def television(s: Style) -> Mesh:
    w, h = s.size(0.75, 0.98), s.size(0.46, 0.56)
    x, rim, foot = w / 2, 0.055, 0.07
    return merge(
        [
            block((-x, x), (-0.03, 0.022), (foot, foot + h), s.main),
            block((-x + rim, x - rim), (0.022, 0.03), (foot + rim, foot + h - rim), (0.16, 0.19, 0.22)),
            block((-0.04, 0.04), (-0.03, 0.0), (0, foot), s.main),
            block((-0.22, 0.22), (-0.10, 0.10), (0, 0.02), s.main),
        ]
    )


def waste_bin(s: Style) -> Mesh:
    r, h = s.size(0.15, 0.19), s.size(0.36, 0.46)
    return merge(
        [
            frustum((0, 0), (0, h), (0.75 * r, r), s.main, top=False, sides=12),
            frustum((0, 0), (h - 0.06, h - 0.055), (0.9 * r, 0.9 * r), DARK, sides=12),
        ]
    )


def picture(s: Style) -> Mesh:
    """Hangs: the back is at y = 0 and the middle of the picture at z = 0."""
    x, z = s.size(0.55, 0.90) / 2, s.size(0.42, 0.62) / 2
    rim = 0.085
    return merge(
        [
            block((-x, x), (0, 0.035), (-z, z), s.main),
            block((-x + rim, x - rim), (0.035, 0.042), (-z + rim, z - rim), (0.80, 0.83, 0.84)),
            block((-x + rim, x - rim), (0.042, 0.046), (-z + rim, -0.1 * z), (0.47, 0.52, 0.42)),
        ]
    )


BUILDERS: dict[str, Callable[[Style], Mesh]] = {
    "bed": bed, "sofa": sofa, "desk": desk, "table": table, "bookshelf": bookshelf, "cabinet": cabinet,
    "wardrobe": wardrobe, "nightstand": nightstand, "chair": chair, "stool": stool, "box": box, "lamp": lamp,
    "plant": plant, "bin": waste_bin, "television": television, "picture": picture,
}  # fmt: skip
"""Category -> builder."""
