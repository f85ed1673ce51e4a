"""Find the scenes under a folder and the convention of each: detected from its files, or named by the user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import DataError
from pipeline.core.options import did_you_mean
from pipeline.datasets.posed_rgbd.convention import Convention, ReadOptions
from pipeline.datasets.posed_rgbd.redwood import Redwood
from pipeline.datasets.posed_rgbd.scannet_export import ScanNetExport
from pipeline.datasets.posed_rgbd.seven_scenes import SevenScenes
from pipeline.datasets.posed_rgbd.tum import Tum
from pipeline.scenes.conventions import checked_id

CONVENTIONS: dict[str, Convention] = {c.name: c for c in (Tum(), SevenScenes(), Redwood(), ScanNetExport())}
DEPTH_OF_SEARCH = 3
"""Folders below the root in which scenes are looked for (7-Scenes: root/chess/seq-01)."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scene's folder, its id (path below the root, parts joined by ``_``) and its convention."""

    scene_id: str
    folder: Path
    convention: Convention


def find_scans(
    root: Path, convention: str, scenes: tuple[str, ...] | None, *, where: str, read: ReadOptions | None = None
) -> list[Scan]:
    """All scenes under ``root``, or the named ones, by id. ``convention``: a name or ``auto``.

    Raises DataError when there is none, when a named one is not there, when a folder fits several conventions (with the
    candidates and the option that chooses) and when two scenes get the same id.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", where=f"{where}.root", fix="correct the path or get the data")
    candidates = CONVENTIONS if convention == "auto" else {convention: CONVENTIONS[convention]}
    found: dict[str, Scan] = {}
    search = _Search(root, candidates, read or ReadOptions(), where)
    try:
        folders = list(search.scenes(scenes))
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})", where=f"{where}.root") from None
    for folder, name in folders:
        scan = Scan(_scene_id(root, folder), folder, CONVENTIONS[name])
        if scan.scene_id in found:
            raise DataError(f"{folder} and {found[scan.scene_id].folder} both get the scene id {scan.scene_id!r}", where=where)
        found[scan.scene_id] = scan
    if not found:
        raise DataError(
            f"no scene of posed RGB-D found in {root} and {DEPTH_OF_SEARCH} levels of folders below",
            where=f"{where}.root",
            allowed="; ".join(f"{c.name}: {c.needs}" for c in candidates.values()),
        )
    return [found[scene_id] for scene_id in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks for scenes of the ``candidates`` below ``root``."""

    root: Path
    candidates: dict[str, Convention]
    read: ReadOptions
    where: str

    def scenes(self, names: tuple[str, ...] | None) -> Iterator[tuple[Path, str]]:
        """(folder, name of its convention) of the wanted scenes."""
        if names is None:
            yield from self._below(self.root, DEPTH_OF_SEARCH)
            return
        for scene in names:
            folder = self.root / scene
            if ".." in Path(scene).parts or Path(scene).is_absolute() or not folder.is_dir():
                there = [path.name for path in sorted(self.root.iterdir()) if path.is_dir()]
                what = f"scene {scene!r} is not a folder below {self.root}{did_you_mean(scene, there)}"
                raise DataError(what, where=f"{self.where}.scenes")
            name = self._convention_of(folder)
            if name is None:
                needs = "; ".join(f"{c.name}: {c.needs}" for c in self.candidates.values())
                raise DataError(f"{folder} is no scene of posed RGB-D", where=f"{self.where}.scenes", allowed=needs)
            yield folder, name

    def _below(self, folder: Path, levels: int) -> Iterator[tuple[Path, str]]:
        """The folder itself when it is a scene, else the scenes below it."""
        name = self._convention_of(folder)
        if name is not None:
            yield folder, name
        elif levels:
            for path in sorted(folder.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield from self._below(path, levels - 1)

    def _convention_of(self, folder: Path) -> str | None:
        """The one convention that fits; None when none does, DataError when several do."""
        fitting = [name for name, convention in self.candidates.items() if convention.matches(folder, self.read)]
        if len(fitting) > 1:
            raise DataError(
                f"{folder} fits several conventions: {', '.join(fitting)}",
                where=self.where,
                allowed="; ".join(f"{name}: {self.candidates[name].needs}" for name in fitting),
                fix=f"name one: convention: {fitting[0]}",
            )
        return fitting[0] if fitting else None


def _scene_id(root: Path, folder: Path) -> str:
    parts = folder.relative_to(root).parts or (root.resolve().name,)
    return checked_id("_".join(parts), what="scene id (from the folder's name)", where=str(folder))
