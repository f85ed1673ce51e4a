"""What was left out of a prepared release: a file beside the scenes, a summary on stderr, and notes of what is not usual."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.core.errors import DataError
from pipeline.core.notes import Note, first_of
from pipeline.core.provenance import write_manifest
from pipeline.datasets.scannet.scenes import Counts
from pipeline.scenes.types import SceneRecord

REPORT = "report.json"


def write_report(
    path: Path, dataset: str, done: Sequence[tuple[SceneRecord, Counts]], broken: Mapping[str, DataError]
) -> list[Note]:
    """Counts per scan and the reasons of the scans that were left out; the notes of them."""
    scans = {
        record.scene_id: {
            "frames": counts.frames,
            "invalid_poses": counts.invalid_poses,
            "empty_masks": counts.empty_masks,
            "unknown_labels": list(counts.unknown_labels),
            "aligned": counts.aligned,
            "depth": None if record.depth is None else asdict(record.depth),
        }
        for record, counts in done
    }
    skipped = {scan: error.what for scan, error in sorted(broken.items())}
    write_manifest(path, {"scans": scans, "skipped": skipped})
    summary = _summary([counts for _, counts in done], skipped)
    unturned = tuple(record.scene_id for record, counts in done if not counts.aligned and record.split != "test")
    if unturned:
        summary.append(f"{len(unturned)} scans of train and val without axisAlignment: not turned{_listed(unturned)}")
    print(f"{dataset}: {'; '.join(summary)}", file=sys.stderr)
    return _notes(done, skipped, unturned)


def _notes(done: Sequence[tuple[SceneRecord, Counts]], skipped: Mapping[str, str], unturned: tuple[str, ...]) -> list[Note]:
    """Return what a user has to know; ``unturned``: scans without alignment. Empty masks are usual and none of it."""
    lost = tuple(record.scene_id for record, counts in done if counts.invalid_poses)
    named = tuple(record.scene_id for record, counts in done if counts.unknown_labels)
    labels = sorted({label for _, counts in done for label in counts.unknown_labels})
    first = next(iter(skipped.values()), "")
    reason = f"scans left out, their files are missing or damaged; the first: {first}"
    poses, frames = (sum(getattr(counts, name) for _, counts in done) for name in ("invalid_poses", "frames"))
    found = (
        Note("scans_left_out", reason, len(skipped), out_of=len(done) + len(skipped), scenes=tuple(skipped)),
        Note("frames_without_pose", "frames without a valid pose: left out", poses, out_of=frames, scenes=lost),
        Note(
            "not_aligned",
            "scans of train and val without axisAlignment: boxes and poses are not turned to the walls",
            len(unturned),
            out_of=sum(record.split != "test" for record, _ in done),
            scenes=unturned,
        ),
        Note(
            "unknown_labels",
            f'names of objects are not in the label table and count as "others": {first_of(labels)}',
            len(labels),
            scenes=named,
        ),
    )
    return [note for note in found if note.count]


def _summary(counts: Sequence[Counts], skipped: Mapping[str, str]) -> list[str]:
    labels = sorted({label for one in counts for label in one.unknown_labels})
    reasons = [f"{scan} ({json.dumps(what)})" for scan, what in skipped.items()]
    frames, poses, masks = (sum(getattr(c, name) for c in counts) for name in ("frames", "invalid_poses", "empty_masks"))
    return [
        f"{len(counts)} scans",
        f"{poses} of {frames} frames dropped: no valid pose",
        f"{masks} empty masks skipped",
        f"{len(labels)} names not in the label table{_listed(labels)}",
        f"{len(skipped)} broken scans left out{_listed(reasons)}",
    ]


def _listed(items: Sequence[str]) -> str:
    return f" ({', '.join(items[:10])}{', ...' if len(items) > 10 else ''})" if items else ""
