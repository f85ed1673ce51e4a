"""Interface of a teacher: a frozen model that turns the views of a scene into per-view token features.

A member is ``teachers/<kind>.py``. Special tokens are dropped inside ``encode``; nothing after it guesses from token counts.
Attributes of an instance (``registry.create("teachers", member)``) distinguish the kinds of teacher, never its name:

* ``has_features = False``: no features (``none``): the DAG has no extract job for it and training has no alignment term.
* ``trained_in_workflow = True``: ``pretrain_dataset()`` names a dataset; ``pretrain_teacher`` writes
  results/teachers/{teacher} first. One kind may be both: ``vggt`` is trained in the workflow at size "rooms" and a released
  checkpoint at size "1b".
* ``is_view = True``: its features are another teacher's (``source()``) under other scene ids (control ``shuffled``).

A teacher with a network derives from ``NetworkTeacher`` (network.py). tests/conformance/test_teachers.py asks of each, run
with ``example``, on a CPU and without a download: ``licences`` is stated where there are released weights; every option has
a description; the file imports no torch; images of any size, portraits too, give finite float32 tokens on ``grid``, which
loses nothing but a centre crop; a change in a corner of the picture changes that corner's tokens most; equal scenes give
equal tokens, also when others are begun in between; ``order_dependent``, ``set_dependent`` and ``reads_depth`` are as
declared; depth is above 0, confidence in [0, 1], the first pose the identity; tokens survive the store. docs/extending.md
has a complete file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.scenes.grid import TokenGrid, Window, common_window
from pipeline.scenes.types import Scene

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


@dataclass(frozen=True, slots=True)
class TeacherFeatures:
    """A teacher's features and predictions for the views of a scene.

    ``tokens`` float32 (V,G,K,D), row-major on ``grid``; several layers stand side by side on D (``Teacher.layers``).
    The rest is None where the teacher does not predict it: ``confidence`` (V,G,K) in [0,1] (a loss weight);
    ``depth`` (V,G,K) distance along the camera's axis per token, > 0, and ``pose`` (V,4,4) world_from_camera with the world
    of the first view's camera (OpenCV axes), both in the teacher's own unit of length.
    ``seen`` is the part of the image that the numbers are about where that is not ``grid.window``: features on a student's
    grid are zero in cells outside of what the teacher's crop showed.
    """

    tokens: NDArray[np.float32]
    grid: TokenGrid
    confidence: NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None
    pose: NDArray[np.float32] | None = None
    seen: Window | None = None

    @property
    def window(self) -> Window:
        """Return the part of the image that the numbers describe."""
        return common_window(self.grid.window, self.seen or self.grid.window)


class Teacher(ABC):
    options_model: ClassVar[type[Options]] = Options
    example: ClassVar[Mapping[str, Any]] = {}
    """Options of a small instance that needs no download: what the conformance suite runs. Default: all defaults."""
    has_features: ClassVar[bool] = True
    is_view: ClassVar[bool] = False
    order_dependent: bool = False
    """True when features depend on the order of views (VGGT: the first view has tokens of its own)."""
    set_dependent: bool = False
    """True when a view's features depend on which other views are encoded with it: all views of a scene go through one
    pass, and fewer views per pass would be other features (VGGT, FLARE, Pi3). False: views can be encoded one by one."""
    reads_depth: bool = True
    """False: ``encode`` never looks at ``depth_m``, so extraction does not decode it (every depth is 0, invalid). Of a Kinect's
    640 x 480 frames the depth takes 6.4 ms to decode, the picture 3.4 ms."""

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options

    @property
    def trained_in_workflow(self) -> bool:
        """True when the weights are made in the DAG."""
        return self.pretrain_dataset() is not None

    @property
    @abstractmethod
    def dim(self) -> int:
        """Return the feature width D."""

    @abstractmethod
    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        """Return the token grid of an image of this size."""

    @abstractmethod
    def encode(self, scene: Scene) -> TeacherFeatures:
        """Compute features of all views of a scene, in the order of ``scene.record.frame_ids``. Call ``load`` first."""

    def load(self, weights: Path | None, device: str) -> str:
        """Load weights onto ``device``; return a digest of them ("" when there are none).

        ``weights`` is the folder results/teachers/{teacher}/ of a teacher trained in the workflow, else None.
        Raises CheckpointError for missing or partial weights.
        """
        return ""

    def prepare(self, scene: Scene) -> Any:
        """Do a scene's CPU work before encoding (resizing); reader threads call it ahead of ``start``. Default: none."""
        return scene

    def start(self, prepared: Any) -> Callable[[], TeacherFeatures]:
        """Begin to encode what ``prepare`` made; the returned function waits for the features (another thread calls it).

        A teacher on a GPU queues its work and returns at once, so that the next scene's work stands behind it. Whatever runs
        out of memory does so here. Default: ``encode`` at once.
        """
        features = self.encode(prepared)
        return lambda: features

    def memory_advice(self) -> str:
        """Return options that need less memory ("teachers.x: precision: bfloat16"), named when memory runs out; "" for none."""
        return ""

    def feature_layer(self) -> str:
        """Describe the extracted features ("layers [-1], frame and global"); part of a store's spec."""
        return ""

    def layers(self) -> dict[str, int]:
        """Return name -> width of the layers concatenated in the tokens, in order; the widths add up to ``dim``."""
        return {"tokens": self.dim}

    def layer_names(self) -> tuple[str, ...] | None:
        """Return the names of ``layers`` where they are known without loading anything, else None."""
        return tuple(self.layers())

    def check_options(self) -> None:  # noqa: B027 - most option models say all there is to say
        """Refuse options that the network cannot have, as far as is known without loading anything. Raises ConfigError."""

    def licences(self) -> Licence:
        """Return the licence of code and weights of this configured teacher. Default: no weights but the project's own code."""
        return Licence(code="Apache-2.0 (this project)", weights="none", commercial=True)

    def weight_files(self) -> tuple[WeightFile, ...]:
        """Return the released weights needed before the first scene; none for teachers made or trained in the workflow."""
        return ()

    def check_weights(self) -> None:  # noqa: B027 - teachers without released weights have nothing to check
        """Check names and shapes of all entries of the weight files without computing anything and without a GPU.

        Reads headers only where the format allows it. Raises CheckpointError for missing, partial or other weights.
        """

    def source(self) -> str | None:
        """Name of the teacher whose stored features a derived teacher uses."""
        return None

    def scene_map(self, scene_ids: Sequence[str]) -> dict[str, str]:
        """Map each scene to the scene whose features replace its own (same number of views). For derived teachers."""
        raise TypeError(f"{type(self).__name__} is not derived")

    def pretrain_dataset(self) -> str | None:
        """Return the dataset (config key) that a teacher trained in the workflow learns from, else None."""
        return None

    def pretrain(self, index: SceneIndex, folder: Path, *, device: str) -> dict[str, float]:
        """Train on ``index``, write weights (safetensors) into ``folder``, return figures. Only if trained_in_workflow."""
        raise TypeError(f"{type(self).__name__} is not trained here")
