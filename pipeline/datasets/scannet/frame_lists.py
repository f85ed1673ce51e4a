"""Frame lists, for example EmbodiedScan's: JSON ``{"scannet/<scan>": ["00000", "00010", ...], ...}``.

EmbodiedScan ships pickles. A pickle is a program that runs when it is loaded, so none is loaded here: docs/scannet.md has the
command that converts one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.reading import read_json_object
from pipeline.scenes.conventions import checked_id

PREFIX = "scannet/"
"""Scans of ScanNet have this prefix; EmbodiedScan's others are of 3RScan and Matterport3D."""
_PICKLES = (".pkl", ".pickle", ".pth", ".pt")


def read_frame_lists(paths: Iterable[Path], wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the ordered frame ids of the ``wanted`` scans that the files list. DataError for other content or unsafe ids."""
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        if path.suffix in _PICKLES:
            raise DataError(
                "the frame list is a pickle, which is not read: loading it could run code of whoever wrote it",
                where=str(path),
                allowed='JSON {"scannet/<scan>": ["<frame>", ...], ...}',
                fix="convert it with the command in docs/scannet.md and name the .json file in frame_lists",
            )
        for name, frames in read_json_object(path, "the frame list", fix="correct the option frame_lists").items():
            scene = name.removeprefix(PREFIX)
            if name != scene and scene in wanted:
                ids = _ids(frames, f"{path}, {name}")
                if scene in found or len(set(ids)) != len(ids):
                    what = f"{scene} or one of its frames comes twice in the frame lists"
                    raise DataError(what, where=str(path), fix="correct the option frame_lists")
                found[scene] = ids
    return found


def _ids(frames: Any, where: str) -> tuple[str, ...]:
    if not isinstance(frames, list):
        raise DataError("the frame list of a scan is not a list", where=where, allowed='["00000", "00010", ...]')
    return tuple(checked_id(frame, what="frame id", where=where) for frame in frames)
