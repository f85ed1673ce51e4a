"""Interface of a dataset: it writes the posed RGB-D layout and official annotation files; reading is common code.

A member (``datasets/<kind>.py``) prepares scenes once (`prepare` rule). Everything after that reads
``results/scenes/{dataset}/manifest.json`` through ``pipeline.index.SceneIndex`` and never the member again.

tests/conformance/test_datasets.py asks of each, prepared with ``example``: ``licence`` is stated and every option has a
description; the file imports no torch or Open3D; pictures show something and depth is in metres, over 30 % of it valid; poses
are rigid and intrinsics fit the images; points of one view lie at the depth that another view measured (median 3 cm);
objects' boxes hold points of the scene; annotations that the manifest names are read by their benchmarks; preparing twice
gives the same files, and finished scenes are not written again. docs/extending.md has a complete file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pipeline.options import Options
from pipeline.provenance import digest


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file or folder of others that ``prepare`` reads: where it is expected, what it is, where to get it, its size."""

    path: Path
    what: str
    source: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What ``prepare`` will make, where the options say it: scenes per split, views per scene, colour images (H,W).

    ``samples``: split -> benchmark kind -> samples, published counts (split train: training samples); empty where the options
    do not say them. ``about``: the scenes are a published average, of which options and faults leave some out.
    """

    scenes: Mapping[str, int]
    views: int
    image_size: tuple[int, int]
    samples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    about: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """What the rule `prepare` asks the scheduler for: CPU threads, memory in MB, minutes. A profile may say otherwise."""

    threads: int = 1
    mem_mb: int = 2000
    runtime_min: int = 60


class Dataset(ABC):
    """One dataset kind.

    Layout that ``prepare`` writes under ``folder`` (= results/scenes/{dataset}/), checked and indexed by pipeline.index:

        posed_images/{scene}/{frame}.jpg  colour      posed_images/{scene}/{frame}.png  depth uint16 mm, 0 = invalid
        posed_images/{scene}/{frame}.txt  4x4 world_from_camera    posed_images/{scene}/intrinsic.txt, depth_intrinsic.txt  4x4
        annotations/<official file names>     the five benchmarks' own formats (specs in benchmarks/*.py)
        manifest.json                         written last through pipeline.index.write_index
    """

    options_model: ClassVar[type[Options]] = Options
    example: ClassVar[Mapping[str, Any]] = {}
    """Options of a miniature that is prepared in seconds (what the conformance suite prepares)."""
    needs: ClassVar[Needs] = Needs()
    """Of preparing it whole; the default suits the built-in rooms."""
    licence: ClassVar[str] = "not stated"
    """Under which terms scenes and annotations may be used."""
    renders: ClassVar[bool] = False
    """Whether ``prepare`` draws its images with Open3D."""
    selecting: ClassVar[frozenset[str]] = frozenset()
    """Options that choose scenes and annotations and change no scene: finished scenes are kept when one of them changes."""
    spec_digest: str = ""
    """Digest of the cell's whole specification, set by the verb `prepare`; goes into the manifest (write_index)."""
    scenes_digest: str = ""
    """The same without the options ``selecting``: goes into the markers of finished scenes."""

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options

    def source_files(self) -> tuple[SourceFile, ...]:
        """What must be there before ``prepare``; nothing for datasets that are made here."""
        return ()

    def planned(self) -> ScenePlan | None:
        """What ``prepare`` will make; None when only the source files say it."""
        return None

    def annotates(self, kind: str, split: str) -> bool:
        """Whether ``prepare`` will write annotations of a benchmark kind for a split, as far as the options say."""
        return True

    @classmethod
    def digests(cls, spec: Mapping[str, Any]) -> tuple[str, str]:
        """(``spec_digest``, ``scenes_digest``) of a specification of the verb `prepare`.

        ``skip_missing_scenes`` says how the benchmarks are configured and is part of neither.
        """
        whole = {key: value for key, value in spec.items() if key != "skip_missing_scenes"}
        member = dict(whole["dataset"])
        member["options"] = {key: value for key, value in member["options"].items() if key not in cls.selecting}
        return digest(whole), digest(whole | {"dataset": member})

    @abstractmethod
    def prepare(self, folder: Path, *, threads: int) -> None:
        """Write scenes and annotations under ``folder`` and, last, its manifest.json. Resumable at scene level.

        Raises DataError/FrameError/AnnotationError for faults of the input data.
        """
