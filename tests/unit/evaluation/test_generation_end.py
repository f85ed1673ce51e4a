"""Where greedy generation ends."""

from __future__ import annotations

import pytest
import torch
from training_helpers import backbone, scene

from pipeline.backbones._transformers.assemble import prefix_embeds
from pipeline.backbones._transformers.chat import PAD
from pipeline.backbones._transformers.generate import encode_prefix, greedy


def test_an_answer_ends_where_training_ended_it_whatever_the_tokenizer_calls_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A released tokenizer may name `<|endoftext|>` as its end: the text after the answer's turn would be scored with it."""
    loaded, found = backbone("internvl"), scene()
    visual = loaded.encode_views(loaded.preprocess(found.rgb)[None], 64, 64)
    prefix = loaded.prefix(2, 64, 64)
    cache = encode_prefix(loaded, prefix, prefix_embeds(loaded, prefix, visual))
    said = iter([*loaded.answer_ids("a white table"), *loaded.answer_ids("what is red?")])

    def logits(_hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(said)]), len(loaded.tokenizer)).float()

    loaded.tokenizer.eos_token = PAD
    monkeypatch.setattr(loaded, "logits", logits)
    assert greedy(loaded, cache, [loaded.question_ids("what is it?")], [0], max_new_tokens=12) == ["a white table"]
