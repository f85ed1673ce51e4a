"""Reading questions and greedy answers behind a shared visual prefix.

The prefix of a scene is run once; its keys and values are reused by all questions of the scene. Questions are
right-padded to one length; explicit positions and a 4-D mask make a padded batch equal to one question at a time.

    cache  = encode_prefix(loaded, prefix, prefix_embeds(loaded, prefix, visual))
    hidden = read_questions(loaded, cache, ids, rows)            # e.g. the state at <ground>
    texts  = greedy(loaded, cache, ids, rows, max_new_tokens=32)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pipeline.backbones._transformers.assemble import causal_mask, prefix_positions
from pipeline.backbones.base import LoadedBackbone, Prefix
from pipeline.core.errors import PredictionError

EditEmbeds = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(embeds (Q,T,C), ids (Q,T)) -> embeds: e.g. adds a position encoding at ``<coord>``. Padding is included."""


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """A prefix after one pass: ``hidden`` (S,P,C) post-norm states, keys and values per decoder layer."""

    prefix: Prefix
    hidden: torch.Tensor
    cache: DynamicCache
    layers: dict[int, torch.Tensor]
    """Hidden states (S,P,C) of other asked layers."""

    def expand(self, scene_rows: Sequence[int]) -> DynamicCache:
        """Return a new cache whose row i holds the prefix of scene ``scene_rows[i]``."""
        rows = torch.as_tensor(list(scene_rows), dtype=torch.long, device=self.hidden.device)
        expanded = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            expanded.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
        return expanded


def encode_prefix(
    loaded: LoadedBackbone, prefix: Prefix, embeds: torch.Tensor, *, layers: Sequence[int] = (-1,)
) -> PrefixCache:
    """Run the prefix embeddings (S,P,C) of S scenes once."""
    cache = DynamicCache()
    mask = causal_mask(embeds.shape[1], embeds.device).expand(len(embeds), -1, -1, -1)
    wanted = tuple(dict.fromkeys((*layers, -1)))
    states = loaded.language(embeds, prefix_positions(prefix, len(embeds), embeds.device), mask, cache=cache, layers=wanted)
    return PrefixCache(prefix, states[-1], cache, states)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Right-padded questions: ``ids`` (Q,T), ``valid`` (Q,T)."""

    ids: torch.Tensor
    valid: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        return self.valid.sum(1)


def _pad(ids: Sequence[Sequence[int]], device: torch.device) -> _Batch:
    if not ids or not all(len(row) for row in ids):
        raise ValueError("every question needs at least one token")
    length = max(len(row) for row in ids)
    padded = torch.zeros(len(ids), length, dtype=torch.long)
    valid = torch.zeros(len(ids), length, dtype=torch.bool)
    for row, question in enumerate(ids):
        padded[row, : len(question)] = torch.as_tensor(list(question), dtype=torch.long)
        valid[row, : len(question)] = True
    return _Batch(padded.to(device), valid.to(device))


def _read(
    loaded: LoadedBackbone, cached: PrefixCache, batch: _Batch, rows: Sequence[int], edit: EditEmbeds | None
) -> tuple[torch.Tensor, DynamicCache]:
    """Read the questions; return hidden states (Q,T,C) and the cache extended by them."""
    count, length = batch.ids.shape
    device = batch.ids.device
    past = cached.hidden.shape[1]
    own = causal_mask(length, device) & batch.valid[:, None, None, :]
    # A padded row may attend to itself, so that no row of the softmax is empty; nothing ever reads it.
    own = own | torch.eye(length, dtype=torch.bool, device=device)[None, None]
    mask = torch.cat([torch.ones(count, 1, length, past, dtype=torch.bool, device=device), own], dim=-1)
    places = cached.prefix.next_position + torch.arange(length, device=device)
    positions = places.expand(len(cached.prefix.positions), count, length)
    embeds = loaded.embed(batch.ids).to(cached.hidden.dtype)
    if edit is not None:
        embeds = edit(embeds, batch.ids)
    cache = cached.expand(rows)
    return loaded.language(embeds, positions, mask, cache=cache)[-1], cache


def _chunks(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@torch.no_grad()
def read_questions(
    loaded: LoadedBackbone,
    cached: PrefixCache,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    edit: EditEmbeds | None = None,
) -> torch.Tensor:
    """Return post-norm hidden states (Q,T,C) of the tokens of Q questions, T the longest (zeros after shorter ones).

    ``rows[i]`` is the scene (row of the prefix cache) that question ``ids[i]`` belongs to.
    """
    batch = _pad(ids, cached.hidden.device)
    hidden, _ = _read(loaded, cached, batch, rows, edit)
    return hidden * batch.valid[..., None]


class NonFiniteLogitsError(PredictionError):
    """The model has no next token for a question: ``place`` among those asked."""

    def __init__(self, place: int):
        super().__init__("the logits of an answer are not finite numbers", fix="train the model again")
        self.place = place


@torch.no_grad()
def greedy(
    loaded: LoadedBackbone,
    cached: PrefixCache,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    max_new_tokens: int,
    edit: EditEmbeds | Sequence[EditEmbeds | None] | None = None,
    batch_rows: int = 128,
) -> list[str]:
    """Generate greedy answers, one text per question, without special tokens. Stop when all rows of a batch have ended.

    Batches of at most ``batch_rows`` questions bound the memory of expanded caches. ``edit`` may be one function for all or
    one per question (then a question is edited alone). Raise NonFiniteLogitsError when a model gives no numbers.
    """
    if len(ids) != len(rows):
        raise ValueError(f"{len(ids)} questions but {len(rows)} scene rows")
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    texts = [""] * len(ids)
    for chunk in _chunks(len(ids), batch_rows):
        chosen = [order[i] for i in chunk]
        batch = _pad([ids[i] for i in chosen], cached.hidden.device)
        try:
            tokens = _decode(loaded, cached, batch, [rows[i] for i in chosen], max_new_tokens, _editor(edit, chosen))
        except NonFiniteLogitsError as error:
            raise NonFiniteLogitsError(chosen[error.place]) from None
        for place, found in zip(chosen, tokens, strict=True):
            texts[place] = str(loaded.tokenizer.decode(found, skip_special_tokens=True)).strip()
    return texts


def _editor(edit: EditEmbeds | Sequence[EditEmbeds | None] | None, chosen: Sequence[int]) -> EditEmbeds | None:
    """Return one editing function for a batch."""
    if edit is None or callable(edit):
        return edit
    own = [edit[i] for i in chosen]

    def each(embeds: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        edited = [e if f is None else f(e[None], i[None])[0] for e, i, f in zip(embeds, ids, own, strict=True)]
        return torch.stack(edited)

    return each


def _decode(
    loaded: LoadedBackbone,
    cached: PrefixCache,
    batch: _Batch,
    rows: Sequence[int],
    max_new_tokens: int,
    edit: EditEmbeds | None,
) -> list[list[int]]:
    """Return the token ids of each row's answer, end of turn excluded."""
    hidden, cache = _read(loaded, cached, batch, rows, edit)
    count, device = len(rows), hidden.device
    # What training teaches as the end of a turn; a released tokenizer's own end may be another token.
    ends = {loaded.answer_ids("")[-1], loaded.tokenizer.eos_token_id}
    last = hidden[torch.arange(count, device=device), batch.lengths - 1]
    visible = torch.cat([torch.ones(count, cached.hidden.shape[1], dtype=torch.bool, device=device), batch.valid], dim=1)
    answers: list[list[int]] = [[] for _ in rows]
    running = [True] * count
    for step in range(max_new_tokens):
        logits = loaded.logits(last).float()
        chosen = logits.argmax(-1)
        # The largest is NaN where any is NaN, and infinite where any is or where there is no other.
        usable = logits.gather(-1, chosen[:, None])[:, 0].isfinite().tolist()
        for row, token in enumerate(chosen.tolist()):
            if running[row] and not usable[row]:
                raise NonFiniteLogitsError(row)
            running[row] = running[row] and token not in ends
            if running[row]:
                answers[row].append(token)
        if not any(running) or step + 1 == max_new_tokens:
            break
        visible = torch.cat([visible, visible.new_ones(count, 1)], dim=1)
        places = (cached.prefix.next_position + batch.lengths + step)[None, :, None]
        positions = places.expand(len(cached.prefix.positions), -1, -1)
        embeds = loaded.embed(chosen[:, None]).to(hidden.dtype)
        last = loaded.language(embeds, positions, visible[:, None, None, :], cache=cache)[-1][:, 0]
    return answers
