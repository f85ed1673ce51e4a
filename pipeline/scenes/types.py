"""Frozen data classes that cross module borders, with their shapes. See conventions.py for frames and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["grounding", "caption", "qa", "representation"]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A ground-truth object. ``box`` (6,) [cx,cy,cz,dx,dy,dz] in metres, world frame."""

    object_id: int
    category: str
    box: tuple[float, float, float, float, float, float]
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DepthFigures:
    """Quality figures of a scene's depth, over the examined views (depth_quality.py).

    ``valid``: share of pixels with depth; ``blank``: views without any. ``near_m``, ``median_m``, ``far_m``: 1st, 50th and 99th
    percentile of depth; None where no pixel has any. ``compared``: points of one view that another measured, too; of these the
    shares about whose depth both ``agree``, and that the other sees ``through`` to something farther (the rest is hidden from
    it); None for too few.
    """

    valid: float
    blank: int
    near_m: float | None
    median_m: float | None
    far_m: float | None
    compared: int
    agree: float | None
    through: float | None


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """Everything about a scene except its pixels; one entry of a dataset's manifest.json.

    ``frame_ids`` is THE ordered frame list: teacher extraction, training and evaluation all use it and nothing else.
    ``world_from_camera`` (V,4,4); ``intrinsics`` and ``depth_intrinsics`` (3,3) in pixels of colour and depth images;
    ``image_size``/``depth_size`` are (height, width); ``proposals`` are detector-like boxes (N,6), or None when the
    split uses ground-truth boxes as candidates (training); ``checksum`` is over the frames' files; ``depth`` None: not
    looked at yet.
    """

    scene_id: str
    split: str
    frame_ids: tuple[str, ...]
    world_from_camera: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]
    depth_size: tuple[int, int]
    objects: tuple[SceneObject, ...]
    proposals: NDArray[np.float64] | None
    checksum: str
    depth: DepthFigures | None = None

    def candidate_boxes(self) -> NDArray[np.float64]:
        """Boxes (N,6) among which grounding chooses: proposals where the split has them, else ground truth by id order."""
        if self.proposals is not None:
            return self.proposals
        return np.asarray([o.box for o in self.objects], dtype=np.float64).reshape(-1, 6)

    def of_frames(self, frame_ids: Sequence[str]) -> SceneRecord:
        """The same scene with only these of its frames, in this order. ValueError for a frame that it does not have."""
        rows = [self.frame_ids.index(frame) for frame in frame_ids]
        return replace(self, frame_ids=tuple(frame_ids), world_from_camera=self.world_from_camera[rows])

    def object(self, object_id: int) -> SceneObject:
        """The ground-truth object with this id (KeyError when there is none)."""
        for candidate in self.objects:
            if candidate.object_id == object_id:
                return candidate
        raise KeyError(object_id)


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene with pixels: ``rgb`` uint8 (V,H,W,3), ``depth_m`` float32 (V,Hd,Wd) with 0 = invalid."""

    record: SceneRecord
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]

    @property
    def scene_id(self) -> str:
        return self.record.scene_id


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to a model about one scene. Field use by task:

    grounding  ``text`` is the description; ``target_ids`` the ground-truth object ids (empty: zero target).
    caption    ``input_box`` (6,) is the box shown to the model (None: gated, no proposal with IoU >= 0.5 found);
               ``references`` all human captions; ``target_ids`` holds the described object.
    qa         ``text`` is the question, ``situation`` the SQA3D situation text (else ""), ``references`` all answers.
               VSI-Bench: ``choices`` are the lettered options of a multiple-choice question, ``numeric`` marks one whose
               answer is a number (both change the prompt).
    representation  no text at all: one sample per scene (correspondence).

    ``subsets`` are the names under which the sample is also reported, e.g. ("unique",), ("st_w_d",), ("what",).
    ``any_number``: a grounding description that may fit no object or several (changes the prompt).
    ``answer`` is the training target text of qa/caption samples ("" for grounding).
    """

    sample_id: str
    scene_id: str
    benchmark: str
    task: Task
    text: str = ""
    situation: str = ""
    answer: str = ""
    references: tuple[str, ...] = ()
    target_ids: tuple[int, ...] = ()
    input_box: tuple[float, ...] | None = None
    any_number: bool = False
    choices: tuple[str, ...] = ()
    numeric: bool = False
    subsets: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A model's raw answer to one sample, before parsing.

    ``raw_text``: generated text (qa, caption). ``probabilities`` (N+1,): softmax over the scene's candidate boxes
    followed by the zero target (grounding). ``boxes`` (N,6): those candidates. ``value``: a number measured on the
    model itself (representation), with ``count`` the number of items it is a mean over and ``scores`` further numbers
    (correspondence: mean cosine of different-voxel pairs and their number).
    """

    raw_text: str = ""
    probabilities: NDArray[np.float64] | None = None
    boxes: NDArray[np.float64] | None = None
    value: float | None = None
    count: int = 0
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed output. ``parsed`` is False when the output could not be used (counted, never raised)."""

    text: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()
    scores: tuple[float, ...] = ()
    value: float | None = None
    count: int = 0
    parsed: bool = True
