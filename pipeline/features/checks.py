"""What makes stored features trustworthy: checksums per view, compared frame lists, and errors that say how to mend them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.features.spec import StoreSpec, rebuild
from pipeline.teachers.base import TeacherFeatures

BFLOAT16_MAX = 3.38e38


def view_checksum(tokens: NDArray[Any], confidence: NDArray[np.float32] | None) -> str:
    """Of one view's bytes as stored: 16 hex digits of SHA-256."""
    value = hashlib.sha256(np.ascontiguousarray(tokens).data)
    if confidence is not None:
        value.update(np.ascontiguousarray(confidence).data)
    return value.hexdigest()[:16]


def damaged(store: Path, scene_id: str, how: str) -> StoreError:
    """The error for a scene whose bytes are not what was written."""
    return StoreError(
        f"stored features of scene {scene_id!r} are damaged ({how})",
        where=str(store),
        mend=f"rm -r {store / 'tokens' / scene_id} && {rebuild(store.parent / 'manifest.json')}"
        "   (extracts this scene again, keeps the others)",
    )


def same_frames(scene_id: str, stored: tuple[str, ...], asked: tuple[str, ...], manifest: Path) -> None:
    """StoreError with the first difference unless both frame lists are equal."""
    if stored == asked:
        return
    first = next((i for i, (a, b) in enumerate(zip(stored, asked, strict=False)) if a != b), min(len(stored), len(asked)))
    ours = repr(stored[first]) if first < len(stored) else "nothing"
    theirs = repr(asked[first]) if first < len(asked) else "nothing"
    raise StoreError(
        f"features of scene {scene_id!r} were made for other frames: first difference at view {first}, "
        f"stored {ours}, asked for {theirs} ({len(stored)} stored, {len(asked)} asked for)",
        where=str(manifest),
        mend=rebuild(manifest),
    )


def check_features(spec: StoreSpec, scene_id: str, frame_ids: Sequence[str], features: TeacherFeatures) -> None:
    """StoreError unless ``features`` have the store's shape and grid and are finite numbers."""
    shape = (len(frame_ids), spec.rows, spec.cols, spec.dim)
    where = f"teacher {spec.teacher!r}, scene {scene_id!r}"
    if features.tokens.shape != shape or features.grid != spec.grid:
        raise StoreError(
            f"features {features.tokens.shape} on {features.grid} do not fit the store",
            where=where,
            allowed=f"{shape} on {spec.grid}; one store has one grid, so all images of a dataset have one size",
        )
    if features.confidence is not None and features.confidence.shape != shape[:3]:
        raise StoreError(f"confidence has shape {features.confidence.shape}", where=where, allowed=f"{shape[:3]}")
    if not np.isfinite(features.tokens).all() or np.abs(features.tokens).max(initial=0.0) > BFLOAT16_MAX:
        raise StoreError("features are not finite numbers", where=where, mend="check the teacher's weights and the depth")
