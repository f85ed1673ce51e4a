"""Putting the shared prefix together: token embeddings, visual tokens at their places, learned separators, positions, mask."""

from __future__ import annotations

import torch

from pipeline.backbones.base import LoadedBackbone, Prefix


def prefix_embeds(loaded: LoadedBackbone, prefix: Prefix, visual: torch.Tensor) -> torch.Tensor:
    """Return embeddings (S,P,C) of the prefix of S scenes from their visual tokens (S,V*N,C)."""
    ids = torch.from_numpy(prefix.input_ids).to(visual.device)
    places = torch.from_numpy(prefix.visual_index).to(visual.device)
    text = loaded.embed(ids).to(visual.dtype).expand(len(visual), -1, -1)
    return loaded.insert_extra(text.index_copy(1, places, visual), prefix)


def prefix_positions(prefix: Prefix, scenes: int, device: torch.device) -> torch.Tensor:
    """Return position ids (A,S,P)."""
    positions = torch.from_numpy(prefix.positions).to(device)
    return positions[:, None].expand(-1, scenes, -1)


def causal_mask(length: int, device: torch.device) -> torch.Tensor:
    """Return a boolean mask (1,1,T,T), True = may attend."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
