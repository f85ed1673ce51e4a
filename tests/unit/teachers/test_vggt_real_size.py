"""VGGT-1B without its weights: no host synchronisation, tables once, FLOPs, on tensors that have shapes and no numbers."""

from __future__ import annotations

import pytest
import torch
from no_transfers import NoTransfers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.teachers.vggt.config import RELEASED_1B, ROOMS, VGGTConfig
from pipeline.teachers.vggt.flops import aggregator_flops, camera_flops, dense_flops, forward_flops
from pipeline.teachers.vggt.layers import RotaryTable
from pipeline.teachers.vggt.model import VGGT

SCANNET = (32, 28, 37)
"""Views, token rows and columns of the paper's setting: 32 views of 392 x 518 pixels."""


@pytest.fixture(scope="module")
def released() -> VGGT:
    with torch.device("meta"):
        model = VGGT(RELEASED_1B, ("camera", "depth"))
    return model.to("meta").eval().requires_grad_(False)


def views(config: VGGTConfig, count: int, rows: int, cols: int, device: str) -> torch.Tensor:
    return torch.rand(1, count, 3, rows * config.patch, cols * config.patch, device=device)


def heads(model: VGGT, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers that predictions need, and both heads on them."""
    config = model.config
    layers = model.aggregator(images, keep=(*config.dpt_layers, -1))
    depth, _ = model.depth_head(layers, (images.shape[-2], images.shape[-1]))
    return model.camera_head(layers[config.depth - 1][:, :, 0])[-1], depth


@torch.no_grad()
def test_a_forward_of_the_released_size_never_waits(released: VGGT) -> None:
    """On the meta device a number does not exist, so .item(), int(tensor) or a branch on a value fails by itself; once the
    tables are there, nothing is copied to the device either."""
    images = views(RELEASED_1B, *SCANNET, device="meta")
    first = heads(released, images)
    tables = dict(released.aggregator.rotary._tables)
    with NoTransfers():
        second = heads(released, images)
    assert [value.shape for value in second] == [(1, 32, 9), (1, 32, 392, 518, 1)] == [value.shape for value in first]
    assert released.aggregator.rotary._tables.keys() == tables.keys()
    assert all(released.aggregator.rotary._tables[key] is table for key, table in tables.items())


def test_the_guard_sees_a_wait() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoTransfers():
        torch.ones(1).max().item()
    with pytest.raises(AssertionError, match="copy to meta"), NoTransfers():
        torch.ones(3).to("meta")


@torch.no_grad()
def test_tables_are_built_once_per_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[int, ...]] = []
    build = RotaryTable._build
    monkeypatch.setattr(RotaryTable, "_build", lambda self, *size: built.append(size[:4]) or build(self, *size))
    model = VGGT(ROOMS, ()).eval()
    for _ in range(3):
        model.aggregator(views(ROOMS, 2, 3, 4, "cpu"))
    assert built == [(3, 3, 4, 1), (3, 3, 4, 2)]


def test_only_wanted_layers_are_run_and_kept() -> None:
    model = VGGT(ROOMS, ()).eval()
    images = views(ROOMS, 2, 3, 4, "cpu")
    seen: list[str] = []
    for number in range(ROOMS.depth):
        model.aggregator.global_blocks[number].register_forward_hook(lambda *_, n=number: seen.append(str(n)))
    with torch.no_grad():
        assert list(model.aggregator(images, keep=(0,))) == [0]
        assert seen == ["0"]
        assert sorted(model.aggregator(images, keep=(-1, 0))) == [0, 1]
        assert seen == ["0", "0", "1"]


def test_heads_are_built_only_when_asked(released: VGGT) -> None:
    with torch.device("meta"):
        alone = VGGT(RELEASED_1B, ())
    assert {name.split(".")[0] for name in alone.state_dict()} == {"aggregator"}
    assert {name.split(".")[0] for name in released.state_dict()} == {"aggregator", "camera_head", "depth_head"}


@torch.no_grad()
def counted(model: VGGT, images: torch.Tensor) -> dict[str, int]:
    """FLOPs of the aggregator and of both heads by torch's own counter."""
    layers: dict[int, torch.Tensor] = {}
    found = {}
    for part, run in {
        "aggregator": lambda: layers.update(model.aggregator(images, keep=(*model.config.dpt_layers, -1))),
        "camera head": lambda: model.camera_head(layers[model.config.depth - 1][:, :, 0]),
        "depth head": lambda: model.depth_head(layers, (images.shape[-2], images.shape[-1])),
    }.items():
        # Attention as matrix products: the counter does not know the CPU's fused kernel.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        found[part] = counter.get_total_flops()
    return found


@pytest.mark.parametrize("grid", [(3, 5, 6), (1, 4, 4), (2, 3, 2)])
def test_flops_of_the_small_size_equal_the_counters(grid: tuple[int, int, int]) -> None:
    model = VGGT(ROOMS, ("camera", "depth")).eval().requires_grad_(False)
    assert counted(model, views(ROOMS, *grid, device="cpu")) == {
        "aggregator": sum(aggregator_flops(ROOMS, *grid).values()),
        "camera head": camera_flops(ROOMS, grid[0]),
        "depth head": dense_flops(ROOMS, *grid, outputs=2),
    }


def test_flops_of_the_released_size_equal_the_counters(released: VGGT) -> None:
    found = forward_flops(RELEASED_1B, *SCANNET, predictions=True)
    assert sum(counted(released, views(RELEASED_1B, *SCANNET, device="meta")).values()) == found["total"]
    # 24 global blocks over 32 * 1041 tokens: more than everything else together.
    assert found["global blocks"] > 0.6 * forward_flops(RELEASED_1B, *SCANNET)["total"]
    assert found["total"] == sum(value for name, value in found.items() if name != "total")
