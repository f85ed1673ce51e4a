"""VGGT's aggregator against a straightforward implementation of it, at a width that a CPU can run.

The straightforward one does what a first reading of the paper suggests and what its public code does: every layer's output is
kept, and every block computes the tables of its rotary code anew, for queries and for keys, from the largest position of that
input (a number that the host must wait for on a GPU). Weights, attention kernel and results are the same; each runs in a
process of its own: ``python -m pipeline.speed._forward TASK``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.weights import initialise
from pipeline.speed._measure import Row, interleaved, peak_mb, reset_peak
from pipeline.speed._memory import child
from pipeline.teachers.vggt.aggregator import Aggregator
from pipeline.teachers.vggt.config import RELEASED_1B, VGGTConfig
from pipeline.teachers.vggt.layers import Attention, Block

HEAD_DIM = 64
OURS, PLAIN = "ours", "straightforward"


def tiny_config(width: int, depth: int) -> VGGTConfig:
    """Return the released network's form with fewer channels: heads of 64, ``depth`` blocks of each kind."""
    heads = width // HEAD_DIM
    last = depth - 1
    return replace(
        RELEASED_1B,
        width=width,
        heads=heads,
        encoder_heads=heads,
        depth=depth,
        encoder_depth=depth,
        dpt_layers=(last // 4, last // 2, 3 * last // 4, last),
    )


def measure(task: dict[str, Any]) -> list[Row]:
    """Measure ``task``: width, depth, views, rows, cols, repeats. Peaks in one process each, times in turn in a third one."""
    ours = child("pipeline.speed._forward", task | {"which": OURS})
    plain = child("pipeline.speed._forward", task | {"which": PLAIN})
    time_s = child("pipeline.speed._forward", task | {"which": "both"})["time_s"]
    worst = max(abs(a - b) for a, b in zip(ours["sample"], plain["sample"], strict=True))
    what = f"VGGT {task['width']} wide, {task['depth']} + {task['depth']} blocks, {task['views']} views"
    note = f"results differ by at most {worst:.0e}" if worst else "the same result"
    return [
        Row(f"{what}: time", time_s[OURS], time_s[PLAIN], PLAIN, "s", "faster", note=note),
        Row(f"{what}: memory", ours["peak_mb"], plain["peak_mb"], PLAIN, "MB", "smaller", note="above the weights"),
    ]


class Straightforward:
    """The baseline: the aggregator's modules, run in the plain way."""

    def __init__(self, aggregator: Aggregator):
        self.aggregator, self.config = aggregator, aggregator.config

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map images (1,V,3,H,W) to every layer (1,V,lead+P,2C)."""
        aggregator, config, views = self.aggregator, self.config, images.shape[1]
        patches = aggregator.patch_tokens(images)
        rows, cols = images.shape[-2] // config.patch, images.shape[-1] // config.patch
        x = torch.cat([aggregator._special_tokens(1, views), patches], dim=1)
        within = self._positions(rows, cols).expand(views, -1, -1)
        across = within.flatten(0, 1)[None]
        outputs = []
        for frame_block, global_block in zip(aggregator.frame_blocks, aggregator.global_blocks, strict=True):
            x = frame = self._block(frame_block, x, within)
            x = self._block(global_block, x.flatten(0, 1)[None], across).unflatten(1, (views, -1))[0]
            outputs.append(torch.cat([frame, x], dim=-1)[None])
        return outputs

    def _positions(self, rows: int, cols: int) -> Tensor:
        """Return row and column (1, lead+P, 2) of every token, 0 for special ones."""
        places = torch.cartesian_prod(torch.arange(1, rows + 1), torch.arange(1, cols + 1))
        return torch.cat([torch.zeros(self.config.lead, 2, dtype=places.dtype), places])[None]

    def _block(self, block: Any, x: Tensor, positions: Tensor) -> Tensor:
        assert isinstance(block, Block)
        x = x + block.ls1(self._attention(block.attn, block.norm1(x), positions))
        return x + block.ls2(block.mlp(block.norm2(x)))

    def _attention(self, attention: Attention, x: Tensor, positions: Tensor) -> Tensor:
        query, key, value = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self._rotated(attention.q_norm(query), positions)
        key = self._rotated(attention.k_norm(key), positions)
        return attention.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate a head's channels: rows the first half, columns the second; tables for 0 to the largest position."""
        half = x.shape[-1] // 2
        frequency = 1.0 / (self.config.rope_base ** (torch.arange(0, half, 2).float() / half))
        angles = torch.arange(int(positions.max()) + 1).float()[:, None] * frequency
        angles = torch.cat([angles, angles], dim=-1)
        parts = []
        for axis, part in enumerate(x.split(half, dim=-1)):
            cos = F.embedding(positions[..., axis], angles.cos())[:, None]
            sin = F.embedding(positions[..., axis], angles.sin())[:, None]
            first, second = part.chunk(2, dim=-1)
            parts.append(part * cos + torch.cat([-second, first], dim=-1) * sin)
        return torch.cat(parts, dim=-1)


@torch.inference_mode()
def _measure(task: dict[str, Any]) -> dict[str, Any]:
    config = tiny_config(task["width"], task["depth"])
    aggregator = Aggregator(config).eval()
    initialise(aggregator, 0)
    generator = torch.Generator().manual_seed(1)
    size = (task["rows"] * config.patch, task["cols"] * config.patch)
    images = torch.rand(1, task["views"], 3, *size, generator=generator)
    plain = Straightforward(aggregator)

    runs: dict[str, Callable[[Tensor], Tensor]] = {
        OURS: lambda x: aggregator(x, keep=(-1,))[config.depth - 1],
        PLAIN: lambda x: plain(x)[-1],
    }
    small = images[:, :1, :, : 2 * config.patch, : 2 * config.patch]
    for run in runs.values():
        run(small)  # libraries are loaded and threads started before anything is counted
    if task["which"] == "both":
        timed = {name: partial(partial, run, images) for name, run in runs.items()}
        return {"time_s": interleaved(timed, task["repeats"])}
    before = reset_peak()
    result = runs[task["which"]](images)
    peak = peak_mb() - before
    sample = result[0, :, :: max(1, result.shape[2] // 7), :: max(1, result.shape[3] // 5)].flatten().tolist()
    return {"peak_mb": peak, "sample": sample}


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
