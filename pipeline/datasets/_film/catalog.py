"""What rooms are made of: categories with their placement, named colours, and the words for both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Placement = Literal["wall", "free", "top", "hung"]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.10, 0.09),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.95, 0.86, 0.14),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.10, 0.25, 0.80),
    "purple": (0.50, 0.16, 0.62),
    "black": (0.07, 0.07, 0.08),
    "white": (0.97, 0.97, 0.97),
}
"""Named colours of objects as sRGB albedo; walls and floors avoid them."""

WALLS = ((0.76, 0.71, 0.62), (0.58, 0.65, 0.72), (0.64, 0.69, 0.60), (0.73, 0.63, 0.62), (0.66, 0.66, 0.66))
FLOORS = ((0.46, 0.36, 0.28), (0.36, 0.34, 0.33), (0.56, 0.49, 0.41), (0.40, 0.45, 0.46))


@dataclass(frozen=True, slots=True)
class Category:
    """``placement``: against a wall, free on the floor, only on top of furniture, or hung on a wall.

    ``large``: places first and serves as a landmark; ``support``: small things may stand on it; ``small_on_top``: a small
    version may stand on furniture; ``most``: the most of it in one room; ``weight``: how often it is drawn.
    """

    name: str
    placement: Placement
    plural: str
    large: bool = False
    support: bool = False
    small_on_top: bool = False
    faces: bool = False
    most: int = 1
    weight: float = 1.0


CATEGORIES: dict[str, Category] = {
    c.name: c
    for c in (
        Category("bed", "wall", "beds", large=True, faces=True, most=2, weight=0.9),
        Category("sofa", "wall", "sofas", large=True, faces=True, most=2, weight=0.9),
        Category("desk", "wall", "desks", large=True, support=True, faces=True, most=2),
        Category("table", "free", "tables", large=True, support=True, most=2),
        Category("bookshelf", "wall", "bookshelves", large=True, faces=True, most=2),
        Category("cabinet", "wall", "cabinets", large=True, support=True, faces=True, most=2, weight=1.2),
        Category("wardrobe", "wall", "wardrobes", large=True, faces=True, most=2, weight=0.8),
        Category("nightstand", "wall", "nightstands", support=True, faces=True, most=2, weight=1.6),
        Category("chair", "free", "chairs", faces=True, most=4, weight=1.5),
        Category("stool", "free", "stools", most=3),
        Category("box", "free", "boxes", small_on_top=True, most=4, weight=1.2),
        Category("lamp", "free", "lamps", small_on_top=True, most=3, weight=1.1),
        Category("plant", "free", "plants", small_on_top=True, most=3, weight=1.1),
        Category("bin", "free", "bins", most=2, weight=1.6),
        Category("television", "top", "televisions", faces=True, most=2, weight=1.8),
        Category("picture", "hung", "pictures", faces=True, most=3, weight=1.1),
    )
}
"""Every category a room may hold."""


@dataclass(frozen=True, slots=True)
class Words:
    """The nouns and colour names that the language of a data set knows: what it may ask for and say is absent."""

    categories: Mapping[str, Category]
    colours: tuple[str, ...]

    def without(self, names: Collection[str]) -> Words:
        """These words less some categories."""
        return Words({n: c for n, c in self.categories.items() if n not in names}, self.colours) if names else self


ROOM_WORDS = Words(CATEGORIES, tuple(COLOURS))
"""Words of the built-in rooms."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def number_word(count: int) -> str:
    """``three``; digits above twelve."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def coloured(colour: str, category: str) -> str:
    """``red chair``; the colour of a plant is its pot's: ``plant in a red pot``."""
    return f"plant in {article(colour)} {colour} pot" if category == "plant" else f"{colour} {category}"


def coloured_plural(colour: str, category: str) -> str:
    """``red chairs``; ``plants in red pots``."""
    return f"plants in {colour} pots" if category == "plant" else f"{colour} {CATEGORIES[category].plural}"


def with_article(noun: str) -> str:
    """``a red chair``, ``an orange chair``."""
    return f"{article(noun)} {noun}"


def article(word: str) -> str:
    """``a`` or ``an``."""
    return "an" if word[0] in "aeiou" else "a"
