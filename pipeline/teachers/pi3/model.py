"""The whole networks with the released state dicts' names: Pi3, and Pi3X with images as its only input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.pi3.config import Pi3Config, Variant
from pipeline.teachers.pi3.conv import ConvHead, MetricDecoder
from pipeline.teachers.pi3.heads import CameraHead, CameraNumbers, HeadDecoder, PatchMap
from pipeline.teachers.pi3.trunk import Trunk
from pipeline.teachers.vggt.layers import RotaryTable

NOT_BUILT: dict[Variant, tuple[str, ...]] = {
    "pi3": (),
    "pi3x": ("depth_encoder.", "depth_emb", "ray_embed.", "pose_inject_blk."),
}
"""Prefixes of a released checkpoint's entries that are left out: Pi3X's encoders of given depth, rays and poses."""

LARGEST_LOG_DEPTH = 15.0
"""Pi3X clamps the logarithm of depth here; Pi3 does not clamp."""

VIEWS_AT_ONCE = 8
"""Convolutions look at one view at a time; this many go together, which bounds memory and changes nothing."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The heads' predictions, per token. The unit of length is the network's own (Pi3X: metres, as it believes).

    ``depth`` (B,V,gh,gw): mean distance along the camera's axis over the token's pixels, > 0; ``confidence`` (B,V,gh,gw) in
    [0,1]: mean of the logistic of the pixels' logits; ``camera``: numbers of the camera-to-world poses (B,V,...).
    """

    depth: Tensor
    confidence: Tensor
    camera: CameraNumbers


class Network(Trunk, ABC):
    """A trunk with the small transformers of the three heads and the camera head."""

    def __init__(self, config: Pi3Config):
        super().__init__(config)
        self.point_decoder = HeadDecoder(config, config.head_width)
        self.conf_decoder = HeadDecoder(config, config.head_width)
        self.camera_decoder = HeadDecoder(config, config.camera_width)
        self.camera_head = CameraHead(config.camera_width)
        self.head_rotary = RotaryTable(config.head_width // config.head_heads, config.rope_base)

    @abstractmethod
    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> Prediction:
        """Predict from the last layer (B,V,P,2C), special tokens included. The last linear layers run in float32."""

    def _decoded(self, decoder: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode tokens (N,P,2C) of single views to patch tokens (N, gh*gw, c) in float32."""
        lead = self.config.registers
        table = self.head_rotary(lead, grid[0], grid[1], 1, tokens.device)
        return decoder(tokens, table)[:, lead:].float()

    def camera(self, tokens: Tensor, grid: tuple[int, int]) -> CameraNumbers:
        """Return the pose numbers of views (N,P,2C)."""
        decoded = self._decoded(self.camera_decoder, tokens, grid)
        with _in_float32(tokens):
            return self.camera_head(decoded)


class Pi3(Network):
    """Heads that are linear layers: every token says the values of its own pixels."""

    def __init__(self, config: Pi3Config):
        super().__init__(config)
        self.point_head = PatchMap(config.head_width, 3, config.patch)
        self.conf_head = PatchMap(config.head_width, 1, config.patch)

    def local_points(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return points (N, gh*gw, patch*patch, 3) in each view's camera frame from tokens (N,P,2C)."""
        decoded = self._decoded(self.point_decoder, tokens, grid)
        with _in_float32(tokens):
            plane, log_depth = self.point_head(decoded).split([2, 1], dim=-1)
        depth = log_depth.exp()
        return torch.cat([plane * depth, depth], dim=-1)

    def confidence_logits(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return logits (N, gh*gw, patch*patch, 1) from tokens (N,P,2C)."""
        decoded = self._decoded(self.conf_decoder, tokens, grid)
        with _in_float32(tokens):
            return self.conf_head(decoded)

    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> Prediction:
        views, shape = tokens.flatten(0, 1), (*tokens.shape[:2], *grid)
        depth = self.local_points(views, grid)[..., 2].mean(-1).view(shape)
        confidence = self.confidence_logits(views, grid)[..., 0].sigmoid().mean(-1).view(shape)
        return Prediction(depth, confidence, _by_scene(self.camera(views, grid), tokens.shape[1]))


class Pi3X(Network):
    """Heads with convolutions, and one number per scene that turns its unit of length into metres."""

    def __init__(self, config: Pi3Config):
        super().__init__(config)
        self.point_head = ConvHead(config, (2, 1))
        self.conf_head = ConvHead(config, (1,))
        self.metric_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.metric_decoder = MetricDecoder(config)
        self.metric_head = nn.Linear(config.metric_width, 1)

    def metric(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return metres per unit of length (B,) of scenes (B,V,P,2C). One number scales all depths, so all of it is float32:
        half a percent of the work or less, and in bfloat16 a tiny network's scale was off by 4 %.
        """
        with _in_float32(tokens):
            return self.metric_head(self.metric_decoder(self.metric_token, tokens.float(), grid)[:, 0])[:, 0].exp()

    def maps(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return depth in the unit of length and confidence logits of views (N,P,2C), each (N,1,H,W)."""
        points = self._decoded(self.point_decoder, tokens, grid)
        logits = self._decoded(self.conf_decoder, tokens, grid)
        with _in_float32(tokens):
            depth = self.point_head(points, grid)[1].clamp(max=LARGEST_LOG_DEPTH).exp()
            return depth, self.conf_head(logits, grid)[0]

    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> Prediction:
        shape, depths, confidences = (*tokens.shape[:2], *grid), [], []
        for views in tokens.flatten(0, 1).split(VIEWS_AT_ONCE):
            depth, logits = self.maps(views, grid)
            depths.append(F.avg_pool2d(depth, self.config.patch))
            confidences.append(F.avg_pool2d(logits.sigmoid(), self.config.patch))
        metric = self.metric(tokens, grid)
        camera = _by_scene(self.camera(tokens.flatten(0, 1), grid), tokens.shape[1])
        camera = CameraNumbers(camera.translation * metric[:, None, None], camera.matrix)
        depth = torch.cat(depths).view(shape) * metric[:, None, None, None]
        return Prediction(depth, torch.cat(confidences).view(shape), camera)


def _in_float32(like: Tensor) -> AbstractContextManager[None]:
    """Return a context for the heads' last layers: float32 whatever the rest is, as in the reference."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _by_scene(camera: CameraNumbers, views: int) -> CameraNumbers:
    return CameraNumbers(camera.translation.unflatten(0, (-1, views)), camera.matrix.unflatten(0, (-1, views)))


NETWORKS: dict[Variant, type[Pi3] | type[Pi3X]] = {"pi3": Pi3, "pi3x": Pi3X}
