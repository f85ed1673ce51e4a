"""FLARE up to its tokens: encoder, coarse cameras, camera-centric geometry, global geometry.

The heads that make point maps and Gaussians of the tokens are not part of it: no tap needs them. Written from a
specification of the released geometry and pose model and checked against outputs of upstream's network at tiny widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.nets.flare.coarse import CoarsePose
from pipeline.nets.flare.config import FLAREConfig, TapName
from pipeline.nets.flare.encoder import Encoder
from pipeline.nets.flare.fine import FineGeometry
from pipeline.nets.flare.point import PointGeometry

ALL_TAPS: tuple[TapName, ...] = ("enc_norm", "dec_norm_fine", "dec_norm_point")


class FLARE(nn.Module):
    """The stages that the wanted taps need and no other. Entries of each stage have the released checkpoint's names."""

    def __init__(self, config: FLAREConfig, taps: Sequence[TapName] = ALL_TAPS):
        super().__init__()
        self.config, self.taps = config, tuple(taps)
        self.encoder = Encoder(config)
        decodes = bool(set(taps) - {"enc_norm"})
        self.coarse = CoarsePose(config) if decodes else None
        self.fine = FineGeometry(config) if decodes else None
        self.point = PointGeometry(config) if "dec_norm_point" in taps else None

    def forward(self, images: Tensor) -> dict[TapName, Tensor]:
        """Images (B,V,3,H,W) in [0,1], H and W multiples of patch * coarse -> tokens (B,V,P,D) of each wanted tap.

        The first view is the reference. All taps but ``enc_norm`` need two views or more.
        """
        keep = frozenset(2 * i for i in self.config.inject) if self.fine is not None else frozenset()
        encoded = self.encoder(images, keep)
        found: dict[TapName, Tensor] = {"enc_norm": encoded.tokens}
        if self.coarse is not None and self.fine is not None:
            fine = self.fine(encoded, self.coarse(encoded).cameras[-1], keep_all=self.point is not None)
            found["dec_norm_fine"] = fine.layers[self.config.decoder_depth - 1]
            if self.point is not None:
                known = self.fine.embedded(self.point.cameras(fine).cameras[-1])
                found["dec_norm_point"] = self.point(encoded, fine, known)
        return {tap: found[tap] for tap in self.taps}

    def stages(self) -> list[nn.Module]:
        """The stages that exist."""
        return [stage for stage in (self.encoder, self.coarse, self.fine, self.point) if stage is not None]

    def entries(self) -> dict[str, Tensor]:
        """Parameters of all stages under their released names, which are unique among stages."""
        return {name: value for stage in self.stages() for name, value in stage.state_dict().items()}

    def load_entries(self, state: dict[str, Tensor]) -> None:
        """Take over parameters by released name, without a copy; entries of stages that do not exist are left out."""
        for stage in self.stages():
            stage.load_state_dict({name: state[name].float() for name in stage.state_dict()}, strict=True, assign=True)
