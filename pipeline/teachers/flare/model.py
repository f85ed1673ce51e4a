"""FLARE up to its tokens: encoder, coarse cameras, camera-centric geometry, global geometry.

The heads that make point maps and Gaussians of the tokens are not part of it: no feature_layer needs them. Written from a
specification of the released geometry and pose model and checked against outputs of upstream's network at tiny widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.teachers.flare.coarse import CoarsePose
from pipeline.teachers.flare.config import FeatureLayer, FLAREConfig
from pipeline.teachers.flare.encoder import Encoder
from pipeline.teachers.flare.fine import FineGeometry
from pipeline.teachers.flare.point import PointGeometry

ALL_FEATURE_LAYERS: tuple[FeatureLayer, ...] = ("enc_norm", "dec_norm_fine", "dec_norm_point")


class FLARE(nn.Module):
    """The stages that the wanted feature layers need and no other. Their entries have the released checkpoint's names."""

    def __init__(self, config: FLAREConfig, feature_layers: Sequence[FeatureLayer] = ALL_FEATURE_LAYERS):
        super().__init__()
        self.config, self.feature_layers = config, tuple(feature_layers)
        self.encoder = Encoder(config)
        decodes = bool(set(feature_layers) - {"enc_norm"})
        self.coarse = CoarsePose(config) if decodes else None
        self.fine = FineGeometry(config) if decodes else None
        self.point = PointGeometry(config) if "dec_norm_point" in feature_layers else None

    def forward(self, images: Tensor) -> dict[FeatureLayer, Tensor]:
        """Map images (B,V,3,H,W) in [0,1], H and W multiples of patch * coarse, to each layer's tokens (B,V,P,D).

        The first view is the reference. All feature_layers but ``enc_norm`` need two views or more.
        """
        keep = frozenset(2 * i for i in self.config.inject) if self.fine is not None else frozenset()
        encoded = self.encoder(images, keep)
        found: dict[FeatureLayer, Tensor] = {"enc_norm": encoded.tokens}
        if self.coarse is not None and self.fine is not None:
            fine = self.fine(encoded, self.coarse(encoded).cameras[-1], keep_all=self.point is not None)
            found["dec_norm_fine"] = fine.layers[self.config.decoder_depth - 1]
            if self.point is not None:
                known = self.fine.embedded(self.point.cameras(fine).cameras[-1])
                found["dec_norm_point"] = self.point(encoded, fine, known)
        return {feature_layer: found[feature_layer] for feature_layer in self.feature_layers}

    def stages(self) -> list[nn.Module]:
        """Return the stages that exist."""
        return [stage for stage in (self.encoder, self.coarse, self.fine, self.point) if stage is not None]

    def entries(self) -> dict[str, Tensor]:
        """Return the parameters of all stages under their released names, which are unique among stages."""
        return {name: value for stage in self.stages() for name, value in stage.state_dict().items()}

    def load_entries(self, state: dict[str, Tensor]) -> None:
        """Take over parameters by released name, without a copy; entries of stages that do not exist are left out."""
        for stage in self.stages():
            stage.load_state_dict({name: state[name].float() for name in stage.state_dict()}, strict=True, assign=True)
