"""ScanNet v2 (Dai et al., CVPR 2017), read from the released files: the scans behind all five benchmarks.

Nothing is downloaded: you accept ScanNet's terms of use and put the files under ``root``. Needed per scan:
``scans/<scan>/<scan>.sens`` (or an exported ``posed_images/<scan>``), ``<scan>.txt``, ``_vh_clean_2.ply``,
``_vh_clean_2.0.010000.segs.json``, ``.aggregation.json``; besides, the label table, the split lists, the benchmarks' files and
Mask3D masks. ``python -m pipeline doctor`` lists what is there. Poses and boxes are axis-aligned; frame ids are the frame
numbers of the stream. Colour and depth are taken to look the same way, as published work does: ``colorToDepthExtrinsics`` are
not applied. What was left out is counted on stderr and in ``posed_images/report.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pipeline.core.errors import DataError, PipelineError
from pipeline.datasets.base import SCENES, AnnotationFileOptions, Dataset, Needs, ScenePlan, SourceFile
from pipeline.datasets.scannet.frame_lists import read_frame_lists
from pipeline.datasets.scannet.labels import read_labels
from pipeline.datasets.scannet.release import annotation_names, choose_scans, read_annotations, read_splits
from pipeline.datasets.scannet.sources import Places, stamps
from pipeline.scenes.conventions import SPLITS
from pipeline.scenes.frames import FrameOptions

if TYPE_CHECKING:
    from pipeline.datasets.scannet.release import Annotations
    from pipeline.datasets.scannet.scenes import Release, SceneJob

COLOR_SIZE = (968, 1296)
"""Colour images of the release in pixels (height, width), but for a few scans."""
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "all": {"train": 1201, "val": 312, "test": 100},
    "annotated": {"train": 562, "val": 141, "test": 0},
}
"""Scans of the official lists, and those that ScanRefer's files ask about: the plan while lists or files are missing."""
_TRAINING: Mapping[str, int] = {
    "scanrefer": 36_665,
    "multi3drefer": 43_838,
    "scan2cap": 36_665,
    "scanqa": 26_515,
    "sqa3d": 79_445,
}
"""Training samples of the official files (3DRS, appendix A.2: 223,128 together)."""
_VALIDATION: Mapping[str, int] = {"scanrefer": 9_508, "multi3drefer": 11_120, "scan2cap": 2_068, "scanqa": 4_675}
_SQA3D: Mapping[str, int] = {"test": 3_519, "val": 3_261}
_SCANQA: Mapping[str, int] = {"val": 4_675, "test_w_obj": 4_976, "test_wo_obj": 6_149}
"""Questions about validation scans (ScanQA's test_wo_obj: about test scans): the papers of the benchmarks, and 3DRS for the
described objects of Scan2Cap."""
_SIZES = ("meshes and labels of all 1,513: about 20 GB", "with .sens streams, all 1,513: about 1.2 TB")
"""Of the released scans, as users report it (github.com: thangvubk/SoftGroup, issue 81; THU-SI/Spatial-MLLM, issue 25)."""
_HOME = "www.scan-net.org (signed terms of use)"
_METADATA = "github.com/ScanNet/ScanNet, Tasks/Benchmark and the release itself"
_MASKS = "the Mask3D masks that LEO released for ScanNet (embodied-generalist/embodied-generalist)"
_ORIGINS: Mapping[str, str] = {
    "scanrefer": "daveredrum.github.io/ScanRefer (request form)",
    "scan2cap": "daveredrum.github.io/ScanRefer (request form)",
    "multi3drefer": "3dlg-hcvc.github.io/multi3drefer",
    "scanqa": "github.com/ATR-DBI/ScanQA",
    "sqa3d": "github.com/SilongYong/SQA3D",
    "vsibench": "huggingface.co/datasets/nyu-visionx/VSI-Bench",
}
Benchmark = Literal["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "vsibench"]


class ScanNetOptions(AnnotationFileOptions):
    """Options: the files, and what is taken of them. ``{root}`` in a path stands for the option root."""

    root: str = Field("data/scannet", description="Folder of the release; other paths may refer to it as {root}.")
    scans: str = Field("{root}/scans", description="Folder with one folder per scan.")
    source: Literal["auto", "sens", "posed_images"] = Field(
        "auto", description="Frames from .sens streams, from exported folders, or (auto) exported where a scan has one."
    )
    posed_images: str = Field(
        "{root}/posed_images", description="Folder of exported frames: <scan>/NNNNN.jpg, .png, .txt, two intrinsics."
    )
    labels: str = Field("{root}/scannetv2-labels.combined.tsv", description="Table of raw names and NYU40 classes.")
    train_scenes: str | None = Field("{root}/scannetv2_train.txt", description="List of training scans; null: none of them.")
    val_scenes: str | None = Field("{root}/scannetv2_val.txt", description="List of validation scans; null: none of them.")
    test_scenes: str | None = Field(None, description="List of test scans (no objects were released); null: none of them.")
    scenes: Literal["all", "annotated"] = Field(
        "all",
        description="All scans of the lists, or only those that the annotation files ask about (562 + 141 of 1201 + 312).",
    )
    only: tuple[str, ...] = Field((), description="Only these scan ids of the lists (empty: no such limit).")
    annotations: str = Field("{root}/annotations", description="Folder with the benchmarks' official files.")
    benchmarks: tuple[Benchmark, ...] = Field(
        ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"),
        description="Benchmarks whose official files are taken from `annotations`; a missing one is an error. vsibench: "
        "test.jsonl for the split val; set benchmarks.vsibench.skip_missing_scenes, it asks about other data sets, too.",
    )
    sqa3d_questions: Literal["test", "val"] = Field(
        "test", description="SQA3D split asked about validation scans: both are about them; published numbers are of test."
    )
    scanqa_questions: Literal["val", "test_w_obj", "test_wo_obj"] = Field(
        "val",
        description="ScanQA's public validation questions, or a set whose answers are hidden: test_w_obj in place of val, "
        "test_wo_obj about the scans of `test_scenes` (`python -m pipeline submission` writes the answers).",
    )
    proposals: Literal["masks", "boxes", "ground_truth"] = Field(
        "masks",
        description="Candidates outside the split train: Mask3D masks, a file of boxes, or ground-truth boxes (oracle).",
    )
    masks: str = Field("{root}/mask", description="proposals masks: folder of <scan>.mask.npz, scipy sparse (masks, vertices).")
    max_masks: int = Field(50, ge=1, le=10_000, description="proposals masks: first masks that are used (3DRS: 50).")
    boxes: str | None = Field(None, description='proposals boxes: JSON {"scannet/<scan>": [[cx,cy,cz,dx,dy,dz], ...]}, metres.')
    frame_step: int = Field(
        10, ge=1, le=10_000, description=".sens: every n-th frame is a candidate (3DRS: 10); exported folders: all are."
    )
    frames: FrameOptions = Field(default_factory=FrameOptions, description="Which candidates become views.")
    frame_lists: tuple[str, ...] = Field(
        (), description='Files of candidates, such as EmbodiedScan\'s: JSON {"scannet/<scan>": ["<frame>", ...], ...}.'
    )
    image_size: tuple[int, int] | None = Field(
        None, description="Height and width of stored colour images in pixels (bicubic); null: the JPEG files as they are."
    )
    skip_broken: bool = Field(
        False, description="Leave out scans whose files are missing or damaged (counted, listed) instead of stopping."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ScanNetOptions:
        if (self.proposals == "boxes") != (self.boxes is not None):
            raise ValueError("`boxes` names the file of proposals: boxes; give both or neither")
        if self.train_scenes is self.val_scenes is self.test_scenes is None:
            raise ValueError("train_scenes, val_scenes and test_scenes are all null: there is no scan")
        if self.image_size is not None and not all(16 <= side <= 4096 for side in self.image_size):
            raise ValueError("image_size is [height, width], 16 to 4096 pixels")
        if self.scanqa_questions == "test_wo_obj" and self.test_scenes is None:
            raise ValueError("scanqa_questions: test_wo_obj is about test scans; name their list with test_scenes")
        if len(set(self.benchmarks)) != len(self.benchmarks):
            raise ValueError("`benchmarks` names one twice")
        return self

    def path(self, text: str) -> Path:
        """An option's path with {root} filled in."""
        return Path(text.replace("{root}", self.root))

    def lists(self) -> dict[str, Path]:
        """Split -> list of its scans."""
        named = {split: getattr(self, f"{split}_scenes") for split in SPLITS}
        return {split: self.path(text) for split, text in named.items() if text is not None}


class ScanNet(Dataset):
    """Scans of ScanNet v2."""

    options_model = ScanNetOptions
    selecting = frozenset(
        (
            *("train_scenes", "val_scenes", "test_scenes", "scenes", "only", "skip_broken"),
            *("annotations", "benchmarks", "sqa3d_questions", "scanqa_questions", "skip_unmatched_annotations"),
        )
    )
    needs = Needs(threads=8, mem_mb=8000, runtime_min=480)
    licence = (
        "ScanNet terms of use (non-commercial research, not redistributable); files of ScanRefer (Scan2Cap too) and ScanQA: "
        "CC BY-NC-SA 3.0, SQA3D: CC BY 4.0, Multi3DRefer: MIT (its repository), VSI-Bench: Apache-2.0, LEO's masks: not stated"
    )
    options: ScanNetOptions

    def source_files(self) -> tuple[SourceFile, ...]:
        """Folders, lists and tables; what each scan lacks is said when it is prepared."""
        o = self.options
        sens = o.source != "posed_images"
        found = [SourceFile(o.path(o.scans), f"released scans ({_SIZES[sens]})", _HOME)]
        if o.source == "posed_images":
            found.append(SourceFile(o.path(o.posed_images), "exported frames", "an export of the .sens streams"))
        found.append(SourceFile(o.path(o.labels), "label table", _METADATA))
        found += [SourceFile(path, f"list of the split {split}", _METADATA) for split, path in o.lists().items()]
        if o.proposals == "masks" and set(o.lists()) != {"train"}:
            found.append(SourceFile(o.path(o.masks), "Mask3D masks", _MASKS))
        if o.boxes is not None:
            found.append(SourceFile(o.path(o.boxes), "proposal boxes", "metadata of Video-3D LLM (zd11024/Video-3D-LLM_data)"))
        found += [SourceFile(o.path(p), "frame list", "EmbodiedScan (request form)") for p in o.frame_lists]
        users: dict[str, list[str]] = {}
        for benchmark, by_split in self._names().items():
            for name in (name for listed in by_split.values() for name in listed):
                users.setdefault(name, []).append(benchmark)
        folder = o.path(o.annotations)
        found += [SourceFile(folder / n, f"annotations of {' and '.join(b)}", _ORIGINS[b[0]]) for n, b in users.items()]
        return tuple(found)

    def planned(self) -> ScenePlan | None:
        """Scans of the lists (and of the annotation files); their published numbers while one of these is missing."""
        o = self.options
        if o.frames.count is None:
            return None
        try:
            scans = self._selection()[0] if o.scenes == "annotated" else choose_scans(read_splits(o.lists()), o.only, None)
            counts = {split: len(ids) for split, ids in scans.items()}
        except PipelineError:
            counts = {split: PUBLISHED[o.scenes][split] for split in o.lists()}
        return ScenePlan(counts, o.frames.count, o.image_size or COLOR_SIZE, self._published_samples())

    def annotates(self, kind: str, split: str) -> bool:
        """The official files that `benchmarks` and the lists of scans ask for."""
        return split in self._names().get(kind, {})

    def _published_samples(self) -> dict[str, dict[str, int]]:
        """Published counts for the splits that are taken; nothing where only some scans are."""
        o = self.options
        if o.only:
            return {}
        scanqa = {"scanqa": _SCANQA[o.scanqa_questions]}
        val = {**_VALIDATION, "sqa3d": _SQA3D[o.sqa3d_questions]}
        hidden = o.scanqa_questions == "test_wo_obj"
        counts = {"train": _TRAINING, "val": val if hidden else val | scanqa, "test": scanqa if hidden else {}}
        taken = {split: counts[split] for split in o.lists() if split in counts}
        return {split: {kind: n for kind, n in known.items() if kind in o.benchmarks} for split, known in taken.items()}

    def prepare(self, folder: Path, *, threads: int) -> None:
        """Convert the scans that are not there yet, then copy the annotation files, then write the manifest."""
        from pipeline.datasets.scannet.making import finished_scenes, make_scenes, nothing_missing
        from pipeline.datasets.scannet.report import REPORT, write_report

        scans, annotations = self._selection()
        jobs = self._jobs(scans, folder, threads)
        found = finished_scenes(jobs, threads)
        todo = [job for job in jobs if found[job.scene_id] is None]
        if not self.options.skip_broken:
            nothing_missing(todo, self.name)
        broken: dict[str, DataError] = {}
        if todo:
            made, broken = make_scenes(
                todo, self._release(scans), threads, name=self.name, skip_broken=self.options.skip_broken
            )
            found |= made
        done = [entry for entry in found.values() if entry is not None]
        if not done:
            first = next(iter(broken.values()))
            raise DataError(f"all {len(broken)} scans are broken; the first: {first.what}", where=first.where, fix=first.fix)
        notes = write_report(folder / SCENES / REPORT, self.name, done, broken)
        records, skip = [record for record, _ in done], self.options.skip_unmatched_annotations
        self.finish(folder, records, annotations=annotations.files, notes=notes, skip_unmatched=skip)

    def _names(self) -> dict[str, dict[str, list[str]]]:
        return annotation_names(
            self.options.benchmarks, tuple(self.options.lists()), self.options.sqa3d_questions, self.options.scanqa_questions
        )

    def _selection(self) -> tuple[dict[str, tuple[str, ...]], Annotations]:
        """Scans per split, and the annotation files, read and checked before any scan is touched."""
        o = self.options
        splits = read_splits(o.lists())
        annotations = read_annotations(o.path(o.annotations), self._names(), splits)
        return choose_scans(splits, o.only, annotations.scans if o.scenes == "annotated" else None), annotations

    def _release(self, scans: Mapping[str, tuple[str, ...]]) -> Release:
        """Return what all scenes share; read once."""
        from pipeline.datasets.scannet.proposals import BoxFile
        from pipeline.datasets.scannet.scenes import Release

        o = self.options
        wanted = frozenset(scan for ids in scans.values() for scan in ids)
        return Release(
            places=self._places(),
            labels=read_labels(o.path(o.labels)),
            max_masks=o.max_masks,
            boxes=None if o.boxes is None else BoxFile(o.path(o.boxes)),
            listed=read_frame_lists((o.path(p) for p in o.frame_lists), wanted) if o.frame_lists else None,
            step=o.frame_step,
            frames=o.frames,
            image_size=o.image_size,
        )

    def _places(self) -> Places:
        o = self.options
        return Places(
            scans=o.path(o.scans),
            exported=None if o.source == "sens" else o.path(o.posed_images),
            either=o.source == "auto",
            masks=o.path(o.masks) if o.proposals == "masks" else None,
            boxes=None if o.boxes is None else o.path(o.boxes),
            shared=(o.path(o.labels), *(o.path(p) for p in o.frame_lists)),
        )

    def _jobs(self, scans: Mapping[str, tuple[str, ...]], folder: Path, threads: int) -> list[SceneJob]:
        """All scans to have, in the order of the splits, with their source files as they are now."""
        from pipeline.datasets.scannet.scenes import SceneJob

        places = self._places()
        listed = [(scan, split) for split in SPLITS for scan in scans.get(split, ())]
        with ThreadPoolExecutor(threads) as workers:  # exported folders hold hundreds of files, perhaps on a far disk
            found = workers.map(lambda one: stamps(places, *one), listed)
            return [
                SceneJob(self.place(folder, scan, split), *known) for (scan, split), known in zip(listed, found, strict=True)
            ]
