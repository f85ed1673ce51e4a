"""What was left out of a prepared release: a file beside the scenes and a summary on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import DataError
from pipeline.provenance import write_manifest
from pipeline.scannet.scenes import Counts
from pipeline.scene import SceneRecord

REPORT = "report.json"


def write_report(path: Path, dataset: str, done: Sequence[tuple[SceneRecord, Counts]], broken: Mapping[str, DataError]) -> None:
    """Counts per scan and the reasons of the scans that were left out."""
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
    turned = [record.scene_id for record, counts in done if not counts.aligned and record.split != "test"]
    if turned:
        summary.append(f"{len(turned)} scans of train and val without axisAlignment: not turned{_listed(turned)}")
    print(f"{dataset}: {'; '.join(summary)}", file=sys.stderr)


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
