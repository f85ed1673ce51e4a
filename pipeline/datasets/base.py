"""Interface of a dataset: it writes the posed RGB-D layout and official annotation files; reading is common code.

A member (``datasets/<kind>.py``) prepares scenes once (`prepare` rule). Everything after that reads
``results/scenes/{dataset}/manifest.json`` through ``pipeline.index.SceneIndex`` and never the member again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipeline.options import Options


class Dataset(ABC):
    """One dataset kind.

    Layout that ``prepare`` writes under ``folder`` (= results/scenes/{dataset}/), checked and indexed by pipeline.index:

        posed_images/{scene}/{frame}.jpg  colour      posed_images/{scene}/{frame}.png  depth uint16 mm, 0 = invalid
        posed_images/{scene}/{frame}.txt  4x4 world_from_camera    posed_images/{scene}/intrinsic.txt, depth_intrinsic.txt  4x4
        annotations/<official file names>     the five benchmarks' own formats (specs in benchmarks/*.py)
        manifest.json                         written last through pipeline.index.write_index
    """

    options_model: ClassVar[type[Options]] = Options
    code: ClassVar[tuple[str, ...]] = ()
    """Dotted package modules (below pipeline) whose behaviour this member's output depends on, besides its own file."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Options of a miniature that is prepared in seconds (what the conformance suite prepares)."""
    spec_digest: str = ""
    """Digest of the cell's whole specification, set by the verb `prepare`; goes into the manifest (write_index)."""

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options

    @abstractmethod
    def prepare(self, folder: Path, *, threads: int) -> None:
        """Write scenes and annotations under ``folder`` and, last, its manifest.json. Resumable at scene level.

        Raises DataError/FrameError/AnnotationError for faults of the input data.
        """
