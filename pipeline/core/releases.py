"""What is published elsewhere and used here: files of weights, and under which licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Licence:
    """``code``: the implementation used here; ``weights``: the released weights; ``commercial``: features may be sold."""

    code: str
    weights: str
    commercial: bool


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file or folder of released weights that a configured member needs.

    ``path`` where it is expected; ``what`` it is, with its official name; ``source`` where to get it (never fetched at
    run time); ``bytes`` its size when known.
    """

    path: Path
    what: str
    source: str
    bytes: int | None = None
