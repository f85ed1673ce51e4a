"""Check that a prepared dataset's annotations and scenes belong together; `prepare` runs it before anything is trained.

Every official file is read by its own benchmark, as training and evaluation will read it, so no fault can appear later.
This code is not in the digest of `prepare` (specs.py): it changes no scene, and every reader of annotations checks again.
"""

from __future__ import annotations

from collections.abc import Collection

from pipeline.benchmarks._annotations import AnnotationOptions
from pipeline.benchmarks._matching import NoEntryError
from pipeline.benchmarks.base import Benchmark
from pipeline.core import registry
from pipeline.core.notes import Note
from pipeline.scenes.index import SceneIndex


def annotation_notes(index: SceneIndex, skip_missing_scenes: Collection[str] = ()) -> list[Note]:
    """Return what was left out of the annotation files. Raise AnnotationError for an entry that cannot be used and must not be
    left out.

    ``skip_missing_scenes``: kinds of benchmarks that are configured to leave out entries about scenes that are not there.
    Splits without a scene are not looked at (nobody can ask about them), nor are files that no benchmark reads (view_qa).
    """
    known = registry.member_files("benchmarks")
    return [
        note
        for kind, splits in index.content["annotations"].items()
        for split in splits
        if kind in known and index.split(split)
        for note in _read(kind, index, split, skip=kind in skip_missing_scenes)
    ]


def _read(kind: str, index: SceneIndex, split: str, *, skip: bool) -> list[Note]:
    takes = issubclass(registry.member_class("benchmarks", kind).options_model, AnnotationOptions)
    options = {"skip_missing_scenes": skip} if takes else {}
    benchmark: Benchmark = registry.create("benchmarks", {"name": kind, "kind": kind, "options": options})
    try:
        if split == "train":
            benchmark.training_samples(index)
        else:
            benchmark.samples(index, split)
    except NoEntryError:
        if not benchmark.left_out:
            raise
        text = f"entries of {kind}, split {split!r}, are about the prepared scenes: nothing can be asked"
        benchmark.left_out.append(Note("no_annotations", text, 0))
    return benchmark.left_out
