"""Every other network of a teacher like VGGT (test_vggt_real_size.py): no forward makes the host wait for the device."""

from __future__ import annotations

import pytest
import torch
from no_transfers import NoTransfers

from pipeline.teachers._vision2d.layouts import LAYOUTS
from pipeline.teachers._vision2d.tiny import tiny_network, tiny_vision
from pipeline.teachers.flare.config import RELEASED as RELEASED_FLARE
from pipeline.teachers.flare.model import FLARE
from pipeline.teachers.pi3.config import RELEASED as RELEASED_PI3
from pipeline.teachers.pi3.config import Variant
from pipeline.teachers.pi3.model import NETWORKS


@torch.no_grad()
def test_flare_of_the_released_size() -> None:
    with torch.device("meta"):
        network = FLARE(RELEASED_FLARE)
    images = torch.zeros(1, 3, 3, 384, 512, device="meta")
    network(images)  # builds the rotary tables
    with NoTransfers():
        found = network(images)
    assert {feature_layer: tuple(value.shape) for feature_layer, value in found.items()} == {
        "enc_norm": (1, 3, 768, 1024),
        "dec_norm_fine": (1, 3, 768, 768),
        "dec_norm_point": (1, 3, 768, 768),
    }


@pytest.mark.parametrize("variant", ["pi3", "pi3x"])
@torch.no_grad()
def test_pi3_of_the_released_size_with_its_heads(variant: Variant) -> None:
    with torch.device("meta"):
        network = NETWORKS[variant](RELEASED_PI3)
    images = torch.zeros(1, 2, 3, 434, 574, device="meta")
    for guard in (torch.no_grad(), NoTransfers()):
        with guard:
            (last,) = network(images).values()
            said = network.predict(last, (31, 41))
    assert said.depth.shape == (1, 2, 31, 41)


@pytest.mark.parametrize("model_type", sorted(LAYOUTS))
@torch.no_grad()
def test_networks_of_transformers(model_type: str) -> None:
    """The library's code: a release that begins to wait would show here."""
    layout, patch = LAYOUTS[model_type], tiny_vision(model_type).patch
    network = tiny_network(model_type).to("meta").eval()
    pixels = torch.zeros(2, 3, 4 * patch, 6 * patch, device="meta")
    layout.call(network, pixels, (4, 6))
    with NoTransfers():
        layout.call(network, pixels, (4, 6))
