"""What was left out of converted scenes: a line on stderr per scene, and notes for the index."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.core.notes import Note
from pipeline.datasets.posed_rgbd.convert import Converted
from pipeline.datasets.posed_rgbd.detect import Scan


def notes_of(converted: Sequence[Converted]) -> list[Note]:
    """Return what was left out of all scenes."""
    frames = sum(done.facts["frames"] for done in converted)
    found = []
    for key, text, out_of in (
        ("without_pose", "frames without a usable pose: left out", frames),
        ("incomplete", "image, depth or pose files without partner: left out", None),
    ):
        scenes = tuple(sorted(done.record.scene_id for done in converted if done.facts[key]))
        count = sum(done.facts[key] for done in converted)
        found.append(Note(f"frames_{key}", text, count, out_of=out_of, scenes=scenes))
    return [note for note in found if note.count]


def report(scan: Scan, done: Converted) -> None:
    """One line on stderr per scene: what was found, dropped and used."""
    facts = done.facts
    dropped = [f"{facts[key]} {text}" for key, text in (("without_pose", "without usable pose"),) if facts[key]]
    dropped += [f"{facts['incomplete']} files without partner"] if facts["incomplete"] else []
    state = "; y of camera and world turned (fy below 0)" if facts.get("y_up") else ""
    state += "" if done.written else " (there already)"
    print(
        f"{scan.scene_id}: {scan.convention.name}, split {done.record.split}, {facts['used']} of {facts['frames']} frames"
        f"{'; dropped ' + ', '.join(dropped) if dropped else ''}{state}",
        file=sys.stderr,
        flush=True,
    )
