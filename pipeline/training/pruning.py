"""The last decoder layer's feed-forward part for the rows that are read, nothing else.

After the last attention no token sees another one, and training reads only visual tokens, answer positions and grounding
queries: about a quarter of a packed row. Skipping the rest saves about a tenth of a step of the tiny models. Done with
hooks on the layer's second norm and feed-forward module, so it needs no change of the `transformers` classes; a decoder
that is built otherwise is run whole. Rows that are not read hold no meaning afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones.base import LoadedBackbone


def last_feed_forward(loaded: LoadedBackbone) -> tuple[nn.Module, nn.Module] | None:
    """Return the last decoder layer's (norm, feed-forward) modules; None for decoders without this structure."""
    if not isinstance(loaded, LoadedTransformersModel):
        return None
    layers = loaded.decoder.layers
    assert isinstance(layers, nn.ModuleList)
    parts = dict(layers[-1].named_children())
    if set(parts) != {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}:
        return None
    return parts["post_attention_layernorm"], parts["mlp"]


@contextmanager
def only_rows(modules: tuple[nn.Module, nn.Module] | None, rows: torch.Tensor) -> Iterator[None]:
    """Make ``modules`` compute only the flat ``rows`` (K,) of their (S,T,C) input and give 0 elsewhere."""
    if modules is None:
        yield
        return
    norm, feed_forward = modules
    shape: list[torch.Size] = []

    def pick(_module: nn.Module, arguments: tuple[Any, ...]) -> torch.Tensor:
        hidden: torch.Tensor = arguments[0]
        shape.append(hidden.shape)
        return hidden.flatten(0, 1).index_select(0, rows)

    def put_back(_module: nn.Module, _arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        size = shape.pop()
        return output.new_zeros(size[:2].numel(), size[2]).index_copy(0, rows, output).view(size)

    hooks = [norm.register_forward_pre_hook(pick), feed_forward.register_forward_hook(put_back)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
