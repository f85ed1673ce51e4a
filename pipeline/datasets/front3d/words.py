"""Nouns and colour names: 3D-FUTURE's categories as plain nouns of the rooms' language, textures as colour names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.catalog import CATEGORIES, Words

NOUNS = {
    "nightstand": "nightstand", "wardrobe": "wardrobe", "bookcase / jewelry armoire": "bookshelf", "shelf": "bookshelf",
    "children cabinet": "cabinet", "wine cabinet": "cabinet", "wine cooler": "cabinet", "tv stand": "cabinet",
    "sideboard / side cabinet / console table": "cabinet", "sideboard / side cabinet / console": "cabinet",
    "drawer chest / corner cabinet": "cabinet", "shoe cabinet": "cabinet", "kitchen cabinet": "cabinet", "cabinet": "cabinet",
    "desk": "desk", "coffee table": "table", "corner/side table": "table", "round end table": "table", "tea table": "table",
    "dining table": "table", "dressing table": "table", "bar": "table", "king-size bed": "bed", "double bed": "bed",
    "single bed": "bed", "bunk bed": "bed", "kids bed": "bed", "bed frame": "bed", "couch bed": "sofa", "armchair": "chair",
    "dining chair": "chair", "lounge chair / cafe chair / office chair": "chair", "dressing chair": "chair",
    "lounge chair / book-chair / computer chair": "chair", "classic chinese chair": "chair", "hanging chair": "chair",
    "folding chair": "chair", "barstool": "stool", "footstool / sofastool / bed end stool / stool": "stool",
    "three-seat / multi-seat sofa": "sofa", "three-seat / multi-person sofa": "sofa", "loveseat sofa": "sofa",
    "l-shaped sofa": "sofa", "u-shaped sofa": "sofa", "lazy sofa": "sofa", "chaise longue sofa": "sofa",
    "pendant lamp": "lamp", "ceiling lamp": "lamp", "floor lamp": "lamp", "wall lamp": "lamp",
}  # fmt: skip
"""Category (lower case; 3D-FUTURE's list and the further ones of 3D-FRONT's furniture) -> noun."""

SUPER_NOUNS = {
    "bed": "bed", "chair": "chair", "sofa": "sofa", "table": "table", "pier/stool": "stool", "stool": "stool",
    "lighting": "lamp", "lamp": "lamp", "cabinet/shelf/desk": "cabinet", "cabinet/shelf": "cabinet",
}  # fmt: skip
"""Super-category (lower case) -> noun, for categories that are not listed above."""

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "black", "white", "gray", "brown", "beige", "pink", "multicolored",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(COLOURS)}
_NAMED = sorted({*NOUNS.values(), *SUPER_NOUNS.values()})

FRONT_WORDS = Words({name: c for name, c in CATEGORIES.items() if name in _NAMED}, COLOURS)
"""What the language may ask for in 3D-FRONT: a plant or a bin may be there without a name, so it is never asked for."""

MAIN_SHARE = 0.4
"""Share of the surface that the most frequent colour must have to name the whole."""


def noun_of(category: str, super_category: str, title: str = "") -> str | None:
    """Plain noun of a model; None for what has none (accessories, rugs, plants, electronics).

    ``title`` is the house file's ``bed/king-size bed``, used when the model list says nothing.
    """
    known = NOUNS.get(category.strip().lower()) or SUPER_NOUNS.get(super_category.strip().lower())
    if known or category or super_category:
        return known
    group, _, name = title.strip().lower().partition("/")
    return NOUNS.get(name) or SUPER_NOUNS.get(group)


def colour_numbers(rgb: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers (N,) in ``COLOURS`` of sRGB colours (N,3) in [0,1]: value and saturation first, then hue in degrees.

    Dark orange is brown, pale orange and yellow are beige, pale red is pink, as people name them (Berlin and Kay's terms).
    """
    value, low = rgb.max(1), rgb.min(1)
    spread = value - low
    saturation = spread / np.maximum(value, 1e-6)
    r, g, b = rgb.T
    safe = np.maximum(spread, 1e-6)
    hue = np.where(value == r, (g - b) / safe % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    warm, yellowish = (hue >= 14) & (hue < 45), (hue >= 45) & (hue < 68)
    reddish = (hue < 14) | (hue >= 345)
    pale = (saturation < 0.42) & (value > 0.62)
    rules = (
        (value < 0.18, "black"),
        ((saturation < 0.12) & (value > 0.82), "white"),
        (saturation < 0.12, "gray"),
        ((warm | yellowish) & pale, "beige"),
        (warm & ((value < 0.78) | (saturation < 0.6)), "brown"),
        (warm, "orange"),
        (yellowish & (value < 0.5), "brown"),
        (yellowish, "yellow"),
        (reddish & pale, "pink"),
        (reddish & (value < 0.42), "brown"),
        (reddish, "red"),
        (hue < 170, "green"),
        (hue < 262, "blue"),
        ((hue >= 310) & (value > 0.6), "pink"),
    )
    numbers = np.full(len(rgb), _NUMBER["purple"])
    for test, name in reversed(rules):
        numbers[test] = _NUMBER[name]
    return numbers


def main_colour(rgb: NDArray[np.float64], weights: NDArray[np.float64]) -> str:
    """Name of the colour that most of a surface has; ``multicolored`` when none has ``MAIN_SHARE`` of it."""
    shares = np.bincount(colour_numbers(rgb), weights=weights, minlength=len(COLOURS)) / max(float(weights.sum()), 1e-12)
    best = int(shares.argmax())
    return COLOURS[best] if shares[best] >= MAIN_SHARE else "multicolored"
