"""Checks of stored features: checksums per view, compared frame lists, and errors that say how to fix them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from pipeline.core.errors import EnvironmentFaultError, StoreError
from pipeline.core.faults import environment_fault
from pipeline.features.spec import StoreSpec, rebuild
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures


def view_checksum(stored: NDArray[np.uint8]) -> str:
    """Return the CRC-32C of one stored view's bytes (n,) as 8 hex digits.

    Zarr's own checksum too. It finds every error of up to 32 bits in a row and all others but one in 4e9; processors compute
    it at 15 GB/s, about as fast as memory is copied (SHA-256: 0.7 GB/s), and other threads run meanwhile.
    """
    return f"{crc32c(stored.data):08x}"


def damaged(store: Path, scene_id: str, how: str) -> StoreError:
    """Return the error for a scene whose bytes are not what was written."""
    return StoreError(
        f"stored features of scene {scene_id!r} are damaged ({how})",
        where=str(store),
        fix=f"rm -rf {shlex.quote(str(store))}/*/{scene_id}; {rebuild(store.parent / 'manifest.json')}"
        "   (extracts this scene again, keeps the others)",
    )


@contextmanager
def disk_faults(folder: Path, kept: int | None = None) -> Iterator[None]:
    """Turn a disk under ``folder`` that is full, fails or may not be written into an EnvironmentFaultError.

    ``kept`` scenes are finished; None: no scene was being written.
    """
    scenes = "finished scenes are kept" + ("" if kept is None else ", the scene being written was taken back")
    scenes = scenes if kept is None else f"{kept} {scenes}"
    try:
        yield
    except OSError as error:
        fault = environment_fault(error, folder)
        if fault is None:
            raise
        raise EnvironmentFaultError(f"{fault.what}; {scenes}", where=fault.where, fix=fault.fix) from error


def same_frames(scene_id: str, stored: tuple[str, ...], asked: tuple[str, ...], manifest: Path) -> None:
    """Raise StoreError with the first difference unless both frame lists are equal."""
    if stored == asked:
        return
    first = next((i for i, (a, b) in enumerate(zip(stored, asked, strict=False)) if a != b), min(len(stored), len(asked)))
    ours = repr(stored[first]) if first < len(stored) else "nothing"
    theirs = repr(asked[first]) if first < len(asked) else "nothing"
    raise StoreError(
        f"features of scene {scene_id!r} were made for other frames: first difference at view {first}, "
        f"stored {ours}, asked for {theirs} ({len(stored)} stored, {len(asked)} asked for)",
        where=str(manifest),
        fix=rebuild(manifest),
    )


def check_features(
    spec: StoreSpec, scene_id: str, frame_ids: Sequence[str], features: TeacherFeatures, own: TokenGrid | None = None
) -> None:
    """Raise StoreError unless ``features`` have the shapes of the store and its grid (or the teacher's own), and finite extras.

    ``own``: the teacher's grid for this scene's images, where the store averages it and image sizes differ; default: the
    spec's.
    Tokens are checked for NaN and infinities while they are written, where they are in the processor's cache.
    """
    grid = spec.grid if spec.native is None else own or spec.native
    shape = (len(frame_ids), grid.rows, grid.cols, spec.dim)
    where = f"teacher {spec.teacher!r}, scene {scene_id!r}"
    if features.tokens.shape != shape or features.grid != grid or not shape[0]:
        raise StoreError(
            f"features {features.tokens.shape} on {features.grid} do not fit the store",
            where=where,
            allowed=f"{shape} on {grid}, one view or more; one store has one grid, so all images of a dataset have one size",
        )
    for name, wanted in {"confidence": shape[:3], "depth": shape[:3], "pose": (shape[0], 4, 4)}.items():
        values = getattr(features, name)
        if values is None:
            continue
        if values.shape != wanted:
            raise StoreError(f"{name} has shape {values.shape}", where=where, allowed=f"{wanted}")
        if not np.isfinite(values).all():
            raise StoreError(f"{name} has numbers that are not finite", where=where, fix="check the teacher's weights")


def not_finite(where: str) -> StoreError:
    """Return the error for tokens with NaN or infinities, or too large for bfloat16."""
    return StoreError("features are not finite numbers", where=where, fix="check the teacher's weights and the depth")


def too_coarse(where: str, moved: float, limit: float) -> StoreError:
    """Return the error for a scene that int8 would change too much."""
    return StoreError(
        f"int8 turns a token by 1 - cosine = {moved:.3g}",
        where=where,
        allowed=f"at most {limit}; channels with spikes need more than 8 bits",
        fix="config.yaml: features.dtype: bfloat16",
    )
