"""Existing posed RGB-D datasets: TUM RGB-D, 7-Scenes, Redwood/Open3D, exported ScanNet; detected from files, or named.

Every scene found under ``root`` is converted to the layout that all datasets share (colour JPEG, depth in millimetres with 0 =
invalid, world from camera). Frames without a usable pose are dropped and counted, on stderr and in the scene's scene.json.
There are no objects and no annotations unless a box file and official annotation files are given.

Run: python -m pipeline prepare --out DIR/manifest.json --spec \
'{"dataset": {"name": "desk", "kind": "posed_rgbd", "options": {"root": "data/tum"}}}'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.options import did_you_mean
from pipeline.datasets.base import SCENES, AnnotationFileOptions, AnnotationFiles, Dataset, Needs, ScenePlan, SourceFile
from pipeline.datasets.posed_rgbd.annotations import official_files, official_names, with_objects
from pipeline.datasets.posed_rgbd.convention import ReadOptions
from pipeline.datasets.posed_rgbd.convert import ConvertOptions, convert_scan
from pipeline.datasets.posed_rgbd.depth import DepthCode
from pipeline.datasets.posed_rgbd.detect import find_scans
from pipeline.datasets.posed_rgbd.poses import usable_pose
from pipeline.datasets.posed_rgbd.report import notes_of, report
from pipeline.scenes.conventions import SPLITS
from pipeline.scenes.frames import FrameOptions
from pipeline.scenes.source_images import image_size

if TYPE_CHECKING:
    from pipeline.datasets.posed_rgbd.convert import Converted
    from pipeline.datasets.posed_rgbd.detect import Scan

Split = Literal["train", "val", "test"]
Pinhole = tuple[float, float, float, float]


class PosedRgbdOptions(AnnotationFileOptions):
    """Options: the scenes, how to read them, which frames to take, and what belongs to them."""

    model_config = ConfigDict(allow_inf_nan=False)

    root: str = Field(min_length=1, description="Folder of one scene, or of scenes up to three levels below.")
    convention: Literal["auto", "tum", "seven_scenes", "redwood", "scannet_export"] = Field(
        "auto", description="How the folders are laid out; auto: told apart by their files, scene by scene."
    )
    scenes: tuple[str, ...] | None = Field(
        None, min_length=1, description="Folders of scenes, relative to root; null: all that are found."
    )
    split: Literal["auto", "train", "val", "test"] = Field(
        "auto",
        description="Split of all scenes, unless `splits` says otherwise. auto: by the scenes' own lists (7-Scenes: "
        "TrainSplit.txt and TestSplit.txt beside the sequences), test where there are none.",
    )
    splits: dict[Split, tuple[str, ...]] | None = Field(
        None, description="Split -> ids of its scenes (folder below root, '/' as '_'); scenes in no split are left out."
    )
    frames: FrameOptions = Field(default_factory=FrameOptions, description="Which frames become the views of a scene.")
    intrinsics: Pinhole | None = Field(
        None,
        description="fx, fy, cx, cy of the colour images in pixels. null: from the scene's files, else the default of the "
        "convention for 640x480 (TUM, Open3D: 525, 525, 319.5, 239.5; 7-Scenes: 585, 585, 320, 240; ICL-NUIM: 481.2, -480, "
        "319.5, 239.5). fy below 0: the camera's y points upwards; y of camera and world is turned.",
    )
    depth_intrinsics: Pinhole | None = Field(
        None, description="fx, fy, cx, cy of the depth images in pixels; null: from files, else the colour camera's."
    )
    depth_unit_per_m: float | None = Field(
        None, gt=0, description="Stored depth units per metre; null: that of the convention (TUM 5000, all others 1000)."
    )
    depth_invalid: tuple[int, ...] | None = Field(
        None, description="Stored depth values besides 0 that mean no measurement; null: 65535 for 7-Scenes, else none."
    )
    depth_code: Literal["plain", "rotated"] = Field(
        "plain", description="rotated: bits of depth are turned left by three (SUN RGB-D, SUN3D)."
    )
    depth_max_m: float | None = Field(None, gt=0, description="Depth beyond this many metres is dropped; null: none is.")
    camera_file: str | None = Field(
        None, description="Name of the camera's file in a scene's folder or the one above: Open3D's JSON, or a matrix as text."
    )
    trajectory: str | None = Field(
        None,
        description="Name of the trajectory file in a scene's folder (Redwood: *.log; TUM: groundtruth.txt, *.gt.freiburg).",
    )
    max_time_difference_s: float = Field(
        0.02, gt=0, le=1, description="TUM: entries closer than this many seconds belong together (TUM's tool: 0.02)."
    )
    clock_offset_s: float = Field(
        0.0, description="TUM: seconds that are added to the times of the poses, where they are of another clock."
    )
    frame_numbers: Literal["auto", "order", "from_0", "from_1"] = Field(
        "auto",
        description="Redwood/Open3D: what entries of a trajectory count. order: the images; from_0, from_1: numbers in their "
        "names, beginning with 0 or 1. auto: refused where both could be meant.",
    )
    exif_orientation: Literal["refuse", "turn", "ignore"] = Field(
        "refuse",
        description="Pictures with an EXIF orientation. turn: as viewers do; depth and camera belong to the turned picture. "
        "ignore: they belong to the pixels as stored. Both are encoded anew, without the tag.",
    )
    gravity: Literal["none", "matrix", "trajectory"] = Field(
        "none",
        description="How z is made to point up. none: poses as they are (TUM, ScanNet: z is up). matrix: `matrix` or "
        "`matrix_file`. trajectory: assumes a camera held without roll; lowest 1 % of what is seen is the floor, z = 0.",
    )
    matrix: tuple[float, ...] | None = Field(
        None, min_length=16, max_length=16, description="gravity matrix: 4x4 by rows, aligned from source, metres."
    )
    matrix_file: str | None = Field(None, description="gravity matrix: name of a file with a 4x4 in every scene's folder.")
    objects: str | None = Field(
        None,
        description="JSON file of boxes per scene, in the aligned world (format: pipeline/datasets/posed_rgbd/annotations.py).",
    )
    annotations: str | None = Field(
        None, description="Folder of official annotation files; needs `objects` but for SQA3D and VSI-Bench."
    )

    @model_validator(mode="after")
    def _consistent(self) -> PosedRgbdOptions:
        if self.gravity == "matrix" and (self.matrix is None) == (self.matrix_file is None):
            raise ValueError("gravity: matrix needs either matrix or matrix_file")
        if self.gravity != "matrix" and (self.matrix is not None or self.matrix_file is not None):
            raise ValueError(f"matrix and matrix_file belong to gravity: matrix, not to gravity: {self.gravity}")
        if self.objects is not None and self.gravity == "trajectory":
            raise ValueError("boxes need a world that is known beforehand: set gravity to none or matrix")
        for name in (self.camera_file, self.trajectory, self.matrix_file):
            if name is not None and (not name or ".." in Path(name).parts or Path(name).is_absolute()):
                raise ValueError(f"{name!r} must be the name of a file in a scene's folder")
        named = [scene for scenes in (self.splits or {}).values() for scene in scenes]
        if len(set(named)) != len(named):
            raise ValueError("splits names a scene twice")
        return self


class PosedRgbd(Dataset):
    """Folders of posed RGB-D in the conventions of TUM, 7-Scenes, Redwood/Open3D and exported ScanNet."""

    options_model = PosedRgbdOptions
    example: ClassVar[Mapping[str, Any]] = {"root": "data/scans"}
    selecting = frozenset(("scenes", "split", "splits", "objects", "annotations", "skip_unmatched_annotations"))
    needs = Needs(threads=4, mem_mb=4000, runtime_min=240)
    licence = "that of the data in `root`"
    options: PosedRgbdOptions

    def source_files(self) -> tuple[SourceFile, ...]:
        o = self.options
        found = [
            SourceFile(Path(o.root), "scenes of posed RGB-D", "whoever made the scans (TUM RGB-D, 7-Scenes, Redwood, ...)")
        ]
        if o.objects is not None:
            found.append(SourceFile(Path(o.objects), "boxes of objects (JSON)", "made by you"))
        if o.annotations is not None:
            found.append(SourceFile(Path(o.annotations), "official annotation files", "the pages of the benchmarks"))
        return tuple(found)

    def planned(self) -> ScenePlan | None:
        """Scenes that are there now; None when they cannot be read or no count of frames is set."""
        try:
            scans = self._scans()
            listing = scans[0][0].convention.read(scans[0][0].folder, self._convert_options(scans[0][0]).read)
            first = listing.frames[0].colour
            size = image_size(first, str(first), self.options.exif_orientation)
        except (PipelineError, OSError, IndexError):
            return None
        if self.options.frames.count is None:
            return None
        count = {split: sum(s == split for _, s in scans) for split in SPLITS}
        return ScenePlan(count, min(self.options.frames.count, len(listing.frames)), size)

    def annotates(self, kind: str, split: str) -> bool:
        """The official files that lie in `annotations`."""
        folder = Path(self.options.annotations or "")
        names, _ = official_names(folder, kind, split)
        return bool(self.options.annotations and names) and all((folder / name).is_file() for name in names)

    def prepare(self, folder: Path, *, threads: int) -> None:
        """Convert the scenes that are not there, then write annotations and the manifest."""
        o = self.options
        converted: list[Converted] = []
        for scan, split in self._scans():
            place = folder / SCENES / scan.scene_id
            done = convert_scan(scan, place, self._convert_options(scan), split=split, threads=threads)
            report(scan, done)
            converted.append(done)
        records = [done.record for done in converted]
        records.sort(key=lambda record: (SPLITS.index(record.split), record.scene_id))
        if o.objects is not None:
            records = with_objects(records, Path(o.objects))
        annotations: AnnotationFiles = {}
        if o.annotations is not None:
            splits = [record.split for record in records]
            annotations = official_files(Path(o.annotations), splits, with_boxes=o.objects is not None)
        skip = o.skip_unmatched_annotations
        self.finish(folder, records, annotations=annotations, notes=notes_of(converted), skip_unmatched=skip)

    def _scans(self) -> list[tuple[Scan, str]]:
        """Scenes with their splits, by id. ConfigError when `splits` names a scene that is not there."""
        o, where = self.options, f"datasets.{self.name}"
        read = self._read_options()
        scans = find_scans(Path(o.root), o.convention, o.scenes, where=where, read=read)
        if o.splits is None and o.split == "auto":
            return [(scan, scan.convention.split(scan.folder) or "test") for scan in scans]
        if o.splits is None:
            return [(scan, o.split) for scan in scans]
        split_of = {scene: split for split, scenes in o.splits.items() for scene in scenes}
        known = {scan.scene_id for scan in scans}
        for scene in split_of:
            if scene not in known:
                raise ConfigError(
                    f"scene {scene!r} is not there{did_you_mean(scene, known)}",
                    where=f"{where}.splits",
                    allowed=", ".join(sorted(known)[:20]),
                )
        if not split_of:
            raise ConfigError("no scene is in any split", where=f"{where}.splits", allowed=", ".join(sorted(known)[:20]))
        return [(scan, split_of[scan.scene_id]) for scan in scans if scan.scene_id in split_of]

    def _read_options(self) -> ReadOptions:
        o = self.options
        return ReadOptions(o.trajectory, o.camera_file, o.max_time_difference_s, o.clock_offset_s, o.frame_numbers)

    def _convert_options(self, scan: Scan) -> ConvertOptions:
        """The options for one scene, the convention's defaults filled in."""
        o = self.options
        matrix = None if o.matrix is None else usable_pose(np.reshape(o.matrix, (4, 4)))
        if o.matrix is not None and matrix is None:
            raise ConfigError(
                "matrix is no rotation with translation",
                where=f"datasets.{self.name}.matrix",
                allowed="16 numbers by rows: a rotation, a shift in metres, and the row 0 0 0 1",
            )
        invalid = scan.convention.invalid_depth if o.depth_invalid is None else o.depth_invalid
        unit = o.depth_unit_per_m or scan.convention.depth_unit_per_m
        return ConvertOptions(
            read=self._read_options(),
            frames=o.frames,
            depth=DepthCode(unit, invalid, o.depth_code, o.depth_max_m),
            camera=o.intrinsics,
            depth_camera=o.depth_intrinsics,
            gravity=o.gravity,
            matrix=matrix,
            matrix_file=o.matrix_file,
            exif=o.exif_orientation,
        )
