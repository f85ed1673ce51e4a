"""Adapter from an installed model's forward to a teacher's network: views in, tokens and predictions on the grid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.scenes.types import Scene
from pipeline.teachers._common.views import PreparedViews, ViewInput, begin_copy
from pipeline.teachers.base import TeacherFeatures

MAPS = ("depth", "confidence")
KEYS = ("tokens", *MAPS, "pose")
Forward = Callable[[Tensor], Mapping[str, Tensor]]


class WrappedNetwork:
    """A network with the ``prepare`` and ``start`` of a NetworkTeacher around a function that calls the model.

    ``forward`` takes images float32 (v,3,h,w) on the device, normalised as ``view_input`` says, and returns by name:

        tokens      (v, rows*cols, D) or (v, rows, cols, D), row-major, without special tokens
        depth       optional, (v, height, width) of any size, along the camera's axis, above 0; averaged to the token grid
        confidence  optional, same form, in [0, 1]
        pose        optional, (v, 4, 4) world_from_camera, OpenCV axes, in any world; only where ``views_per_pass`` is None

    ``views_per_pass`` None: one call sees all views of a scene (``set_dependent`` teachers); else that many views at most.
    ``name`` is the teacher's, for messages. A ConfigError names the part of the output that does not fit.
    """

    def __init__(self, name: str, forward: Forward, view_input: ViewInput, *, dim: int, views_per_pass: int | None = None):
        self.where, self.forward, self.input = f"the forward of teachers.{name}", forward, view_input
        self.dim, self.views_per_pass = dim, views_per_pass

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize all views."""
        return self.input.prepare(scene.rgb)

    @torch.inference_mode()
    def start(self, prepared: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for the features of all views, in order."""
        size = (prepared.grid.rows, prepared.grid.cols)
        pixels = self.input.to_device(prepared)
        passes = [
            self._stored(self.forward(part), len(part), size) for part in pixels.split(self.views_per_pass or len(pixels))
        ]
        ready = {name: begin_copy(torch.cat([one[name] for one in passes])) for name in passes[0]}

        def features() -> TeacherFeatures:
            found = self._checked({name: array() for name, array in ready.items()})
            return TeacherFeatures(
                found["tokens"], prepared.grid, found.get("confidence"), found.get("depth"), found.get("pose")
            )

        return features

    def _stored(self, answer: Mapping[str, Tensor], views: int, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what ``forward`` gave for some views: float32, tokens (v,G,K,D), maps (v,G,K), ``pose`` (v,4,4) unchanged."""
        unknown = [name for name in answer if name not in KEYS]
        if unknown or "tokens" not in answer:
            raise ConfigError(
                f"it gives {', '.join(answer)}", where=self.where, allowed=f"tokens, and of {', '.join(KEYS[1:])}"
            )
        if "pose" in answer and self.views_per_pass is not None:
            raise ConfigError(
                "it gives poses of views that are encoded separately", where=self.where, fix="views_per_pass=None, or no pose"
            )
        (rows, cols), dim = size, self.dim
        stored = {}
        for name, value in answer.items():
            shape = tuple(value.shape)
            allowed = {
                "tokens": f"({views}, {rows * cols}, {dim}) or ({views}, {rows}, {cols}, {dim})",
                "pose": f"({views}, 4, 4)",
            }
            fits = {
                "tokens": shape in ((views, rows * cols, dim), (views, rows, cols, dim)),
                "pose": shape == (views, 4, 4),
            }.get(name, len(shape) == 3 and shape[0] == views)
            if not fits:
                raise ConfigError(
                    f"its {name} have the shape {shape}",
                    where=self.where,
                    allowed=allowed.get(name, f"({views}, height, width)"),
                    fix="drop special tokens; fit dim and the resize rule to the model",
                )
            stored[name] = F.adaptive_avg_pool2d(value.float(), size) if name in MAPS else value.float()
        return stored | {"tokens": stored["tokens"].reshape(views, rows, cols, dim)}

    def _checked(self, found: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return the same values with poses in the first view's frame. Raise ConfigError for numbers out of range."""
        wrong = {
            "depth": "depth" in found and not (found["depth"] > 0).all(),
            "confidence": "confidence" in found and not ((found["confidence"] >= 0) & (found["confidence"] <= 1)).all(),
            "pose": "pose" in found and not _rigid(found["pose"]),
        }
        allowed = {"depth": "above 0", "confidence": "0 to 1", "pose": "world_from_camera: a rotation, then a translation"}
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(f"its {name} has numbers out of range", where=self.where, allowed=allowed[name])
        if "pose" not in found:
            return found
        world_from_camera = found["pose"].astype(np.float64)
        relative = (np.linalg.inv(world_from_camera[0]) @ world_from_camera).astype(np.float32)
        relative[0] = np.eye(4)
        return found | {"pose": relative}


def _rigid(poses: NDArray[np.float32]) -> bool:
    """Return whether poses (V,4,4) are rotations without reflection, to the precision of bfloat16, and translations."""
    if not np.isfinite(poses).all():
        return False
    rotation = poses[:, :3, :3].astype(np.float64)
    turned = rotation @ rotation.transpose(0, 2, 1)
    whole = np.allclose(poses[:, 3], (0, 0, 0, 1), atol=1e-3) and np.allclose(turned, np.eye(3), atol=3e-2)
    return whole and bool((np.linalg.det(rotation) > 0).all())
