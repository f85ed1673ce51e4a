"""Interface of a dataset: it writes the posed RGB-D layout and official annotation files; reading is common code.

A member (``datasets/<kind>.py``) prepares scenes once (`prepare` rule). Everything after that reads
``results/scenes/{dataset}/manifest.json`` through ``pipeline.scenes.index.SceneIndex`` and never the member again.

tests/conformance/test_datasets.py asks of each, prepared with ``example``: ``licence`` is stated and every option has a
description; the file imports no torch or Open3D; pictures show something and depth is in metres, over 30 % of it valid; poses
are rigid and intrinsics fit the images; points of one view lie at the depth that another view measured (median 3 cm);
objects' boxes hold points of the scene; annotations that the manifest names are read by their benchmarks; preparing twice
gives the same files, and finished scenes are not written again. docs/extending.md has a complete file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipeline.core.notes import Note
from pipeline.core.options import Options
from pipeline.core.provenance import digest, write_atomic
from pipeline.scenes.index import write_index
from pipeline.scenes.types import SceneObject, SceneRecord
from pipeline.scenes.writer import ScenePlace, SceneWriter, remove_others

__all__ = [
    "SCENES",
    "AnnotationFiles",
    "Dataset",
    "Needs",
    "SceneObject",
    "ScenePlace",
    "ScenePlan",
    "SceneRecord",
    "SceneWriter",
    "SourceFile",
    "contents",
]
"""What a member needs, in one place."""

AnnotationFiles = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Benchmark -> split -> official file name -> its content: bytes, or what JSON can hold. Benchmarks may share a file."""
SCENES = "posed_images"
"""Folder of the scenes below that of the dataset."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An external file or folder that ``prepare`` reads: where it is expected, what it is, where to get it, its size."""

    path: Path
    what: str
    source: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """The scenes that ``prepare`` will make, as far as the options say it: scenes per split, views per scene, colour images
    (H,W).

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
    """Resources that the rule `prepare` asks the scheduler for: CPU threads, memory in MB, minutes. A profile may say
    otherwise.
    """

    threads: int = 1
    mem_mb: int = 2000
    runtime_min: int = 60


class AnnotationFileOptions(Options):
    """Options of datasets whose annotations are read from files."""

    skip_unmatched_annotations: bool = Field(
        False,
        description="Leave out annotation entries about scenes, or naming objects, that are not there (counted, listed) "
        "instead of refusing the files. Scores are then of a subset and not comparable with published ones.",
    )


class Dataset(ABC):
    """One dataset kind.

    ``prepare`` asks ``place`` where a scene goes, keeps it when ``place.finished()`` gives its record, and otherwise writes it
    with a ``SceneWriter``. At the end it gives all records to ``finish``. Below ``folder`` (results/scenes/{dataset}/) then lie

        posed_images/{scene}/{frame}.jpg  colour      posed_images/{scene}/{frame}.png  depth uint16 mm, 0 = invalid
        posed_images/{scene}/{frame}.txt  4x4 world_from_camera    posed_images/{scene}/intrinsic.txt, depth_intrinsic.txt  4x4
        posed_images/{scene}/scene.json   the scene's entry of the index, and the dataset's own facts about it
        annotations/<official file names>     the benchmarks' own formats (see benchmarks/*.py)
        manifest.json                         the index, written last
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

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options
        self.spec_digest = self.scenes_digest = digest(options.model_dump(mode="json"))
        """Of the cell's whole specification, for the manifest; and without the options ``selecting``, for the markers of
        finished scenes. `prepare` sets both (``digests``)."""

    def source_files(self) -> tuple[SourceFile, ...]:
        """Return what must be there before ``prepare``; nothing for datasets that are made here."""
        return ()

    def planned(self) -> ScenePlan | None:
        """Return what ``prepare`` will make; None when only the source files say it."""
        return None

    def annotates(self, kind: str, split: str) -> bool:
        """Return whether ``prepare`` will write annotations of a benchmark kind for a split, as far as the options say."""
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

    def place(self, folder: Path, scene_id: str, split: str, made_of: str = "") -> ScenePlace:
        """Return where a scene goes below ``folder``. ``made_of``: digest of what it is made of besides the specification."""
        spec = digest([self.scenes_digest, made_of]) if made_of else self.scenes_digest
        return ScenePlace(folder / SCENES / scene_id, split, spec)

    def finish(
        self,
        folder: Path,
        records: Sequence[SceneRecord],
        *,
        annotations: AnnotationFiles | None = None,
        notes: Sequence[Note] = (),
        skip_unmatched: bool | None = None,
    ) -> None:
        """Remove scenes that an earlier run left, write the annotation files and, last, manifest.json.

        ``records``: of all scenes, in the order of the splits. ``notes``: what a user has to know about the data.
        ``skip_unmatched``: the option ``skip_unmatched_annotations``; None where there is none.
        """
        annotations = annotations or {}
        remove_others(folder / SCENES, {record.scene_id for record in records})
        for name, content in contents(annotations).items():
            data = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")) + "\n"
            write_atomic(folder / "annotations" / name, data)
        paths = {
            b: {s: [f"annotations/{n}" for n in files] for s, files in splits.items()} for b, splits in annotations.items()
        }
        spec, skip = self.spec_digest, skip_unmatched
        write_index(
            folder, records, dataset=self.name, root=SCENES, annotations=paths, spec=spec, notes=notes, skip_unmatched=skip
        )

    @abstractmethod
    def prepare(self, folder: Path, *, threads: int) -> None:
        """Write scenes and annotations under ``folder`` and, last, its manifest.json. Resumable at scene level.

        Raises DataError/FrameError/AnnotationError for faults of the input data.
        """


def contents(annotations: AnnotationFiles) -> dict[str, Any]:
    """File name -> content of all annotation files."""
    return {name: data for splits in annotations.values() for files in splits.values() for name, data in files.items()}
