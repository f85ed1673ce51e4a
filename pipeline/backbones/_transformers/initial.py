"""Starting values of tiny models, so that they learn from a few thousand views in a minute or two.

A tower that starts with near-zero positions and near-zero attention has to find out first which patches are neighbours. Two
standard remedies: sine-cosine positions as starting values (as masked autoencoders use) and equal query and key projections,
so that attention starts by similarity (Trockman & Kolter 2023, "Mimetic initialization of self-attention layers").
Measured on 400 rooms, 400 steps of 32 views, LLaVA-OneVision tiny: category of a cell 0.42 instead of 0.28.

Word embeddings start with norm 1.7 instead of 0.57: the words of question and cells then outweigh what the first layers add.
Measured with cells given as true words, 200 steps of 12 views: answer loss 0.74 instead of 0.85.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

EMBEDDING_STD = 0.15
POSITION_SCALE = 0.4
QUERY_KEY_STD = 0.1
_PERIODS = 100.0
_STEP = 3.0


def sine_positions(rows: int, cols: int, width: int) -> torch.Tensor:
    """Return a position code (rows*cols, width), row-major: sines and cosines of row, then column; ``width`` divisible by 4."""
    quarter = width // 4
    frequency = _STEP * _PERIODS ** -(torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(cols).float(), indexing="ij")
    waves = [wave for place in (y, x) for angle in (place.reshape(-1, 1) * frequency,) for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1)


@torch.no_grad()
def start_embeddings(table: torch.Tensor) -> None:
    """Scale a word table (words, width) in place to the standard deviation EMBEDDING_STD."""
    table.mul_(EMBEDDING_STD / table.std())


@torch.no_grad()
def start_positions(table: torch.Tensor, rows: int, cols: int) -> None:
    """Fill the last rows*cols rows of a position table (..., tokens, width) in place."""
    table[..., -rows * cols :, :] = POSITION_SCALE * sine_positions(rows, cols, table.shape[-1])


@torch.no_grad()
def start_attention(layers: Iterable[Any]) -> None:
    """Give every attention module equal random query and key projections, in place, from the global generator."""
    for attention in layers:
        weight = torch.randn_like(attention.q_proj.weight) * QUERY_KEY_STD
        attention.q_proj.weight.copy_(weight)
        attention.k_proj.weight.copy_(weight)
