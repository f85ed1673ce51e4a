"""Prepare a dataset: posed RGB-D scenes, annotations and the index that every later step reads."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.benchmarks._prepared import annotation_notes
from pipeline.core import registry
from pipeline.core.errors import ConfigError, EnvironmentFaultError, PipelineError
from pipeline.core.notes import Note
from pipeline.core.provenance import run_record, write_atomic
from pipeline.scenes.depth_quality import depth_summary
from pipeline.scenes.index import SceneIndex, add_notes

if TYPE_CHECKING:
    from pipeline.datasets.base import Dataset

HELP = "make or convert a dataset and index its scenes (resumes at scene level)"
OWNS_FOLDER = True

OWNED = ("posed_images", "annotations", "manifest.json", "run.json")
"""Entries of the output folder that belong to this command and are removed when its specification changes."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="results/scenes/DATASET/manifest.json")


def run(args: argparse.Namespace) -> None:
    if "dataset" not in args.spec:
        raise ConfigError("the specification names no dataset", where="--spec", allowed='{"dataset": {name, kind, options}}')
    dataset = registry.create("datasets", args.spec["dataset"])
    folder = args.out.parent
    dataset.spec_digest, dataset.scenes_digest = dataset.digests(args.spec)
    _own_folder(folder, dataset)
    with run_record(folder / "run.json", command="prepare", spec=dataset.spec_digest) as record:
        dataset.prepare(folder, threads=max(1, args.threads))
        _compare_annotations(args.out, dataset, args.spec.get("skip_missing_scenes", ()))
        index = SceneIndex(args.out)
        record["scenes"] = len(index.content["scenes"])
    print(f"prepared {record['scenes']} scenes of {dataset.name}: {args.out}")
    print(depth_summary(list(index)))
    for note in index.notes:
        print(f"warning: {dataset.name}: {note.line()}")


def _size_notes(index: SceneIndex) -> list[Note]:
    """Scenes with images of another size than most: teachers may see them on another grid, and a feature store has one."""
    common = Counter(record.image_size for record in index).most_common(1)
    others = tuple(record.scene_id for record in index if common and record.image_size != common[0][0])
    if not others:
        return []
    height, width = common[0][0]
    text = (
        f"scenes have images of another size than {height}x{width}: a teacher whose grid depends on the image size needs "
        "features.grid (docs/features.md)"
    )
    return [Note("image_sizes", text, len(others), out_of=len(index.records), scenes=others)]


def _compare_annotations(manifest: Path, dataset: Dataset, skip_missing_scenes: Sequence[str]) -> None:
    """Compare all annotations with the scenes; what does not belong together is found here and not after all trainings.

    Scenes are kept when they are refused, the manifest is not: it says that the dataset is prepared.
    """
    index = SceneIndex(manifest)
    try:
        add_notes(manifest, [*_size_notes(index), *annotation_notes(index, skip_missing_scenes)])
    except PipelineError as error:
        manifest.unlink()
        raise _of_source(error, manifest.parent / "annotations", dataset) from None


def _of_source(error: PipelineError, copies: Path, dataset: Dataset) -> PipelineError:
    """Return the error with the user's own annotation file in place of its copy in ``copies``: the user corrects that one."""
    what, where = error.what, error.where or ""
    for copy in copies.glob("*"):
        for source in dataset.source_files():
            origin = source.path if source.path.name == copy.name else source.path / copy.name
            if origin.is_file():
                what, where = what.replace(str(copy), str(origin)), where.replace(str(copy), str(origin))
    return type(error)(what, where=where, allowed=error.allowed, fix=error.fix)


def _own_folder(folder: Path, dataset: Dataset) -> None:
    """Make the folder ready: what another specification left there goes, what this one left stays for resuming."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise EnvironmentFaultError(
            f"cannot make the folder {folder} ({error.strerror})", fix="choose another folder"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentFaultError(f"cannot write into {folder}", fix="choose another folder or change its permissions")
    state = folder / "spec.json"
    foreign = [name for name in OWNED if (folder / name).exists()]
    if foreign and not state.exists():  # someone's own data, perhaps the source itself: never remove it
        raise EnvironmentFaultError(
            f"the folder holds {', '.join(foreign)} that `prepare` has not made",
            where=str(folder),
            fix="choose another folder for --out, or remove them yourself",
        )
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = None
    same_scenes = known == dataset.scenes_digest
    if same_scenes and _spec_of(folder / "manifest.json") == dataset.spec_digest:
        return
    for name in OWNED:
        path = folder / name
        if name == "posed_images" and same_scenes:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_atomic(state, json.dumps(dataset.scenes_digest) + "\n")


def _spec_of(manifest: Path) -> str | None:
    """Digest of the specification that a manifest was made with; None when there is none."""
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))["spec"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
