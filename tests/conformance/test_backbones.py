"""Every backbone kind, found by scan: its parts put together are the class's own model, and its tokens look where it says.

A kind whose options need files (a released checkpoint) is not built here and is skipped by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.backbones._transformers.assemble import causal_mask, prefix_embeds, prefix_positions
from pipeline.backbones._transformers.generate import encode_prefix, greedy, read_questions
from pipeline.backbones._transformers.prompts import INSTRUCTION
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN, LoadedBackbone
from pipeline.core import registry
from pipeline.training.packing import block_mask, block_positions, make_question, pack

HEIGHT, WIDTH, VIEWS = 96, 128, 3
TEXTS = [
    INSTRUCTION,
    "You are a helpful assistant. system user assistant",
    "What color is the chair next to the brown table? Answer the question simply.",
    "Identify the object according to the following description.\nThe red lamp on the small table.",
] * 4
QUESTIONS = ["What color is the chair?", "How many red lamps are on the table? Answer the question simply.", "Is it 3?"]


def _pretrained_here(kind: str) -> bool:
    member = registry.create("backbones", {"name": kind, "kind": kind, "options": {}})
    return member.pretrain_dataset() is not None


KINDS = sorted(registry.member_files("backbones"))


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LoadedBackbone, Path]:
    """(member, loaded, folder of its tokenizer) of one kind."""
    kind = request.param
    if not _pretrained_here(kind):
        pytest.skip(f"{kind} is only loaded from a checkpoint")
    torch.set_num_threads(1)
    member = registry.create("backbones", {"name": kind, "kind": kind, "options": {}})
    folder = tmp_path_factory.mktemp(kind)
    member.train_tokenizer(TEXTS, folder)
    loaded = member.build(folder, seed=0, device="cpu")
    loaded.model.eval()
    return member, loaded, folder


def _views(seed: int, views: int = VIEWS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (views, HEIGHT, WIDTH, 3), dtype=np.uint8)


def _embeds(loaded: LoadedBackbone, scenes: int = 1) -> tuple[Any, torch.Tensor]:
    prefix = loaded.prefix(VIEWS, HEIGHT, WIDTH)
    pixels = torch.stack([loaded.preprocess(_views(s)) for s in range(scenes)])
    return prefix, prefix_embeds(loaded, prefix, loaded.encode_views(pixels, HEIGHT, WIDTH))


def _whole(loaded: LoadedBackbone, question: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, positions and mask of one scene with one question as a plain causal sequence."""
    prefix, embeds = _embeds(loaded)
    length = len(question)
    embeds = torch.cat([embeds, loaded.embed(torch.tensor(question))[None]], dim=1)
    head = prefix_positions(prefix, 1, embeds.device)
    tail = (prefix.next_position + torch.arange(length)).expand(len(head), 1, length)
    return embeds, torch.cat([head, tail], dim=2), causal_mask(embeds.shape[1], embeds.device)


@torch.no_grad()
def test_parts_equal_the_class_forward(built: Any) -> None:
    _, loaded, _ = built
    question = loaded.question_ids(QUESTIONS[1])
    embeds, positions, mask = _whole(loaded, question)
    ours = loaded.logits(loaded.language(embeds, positions, mask)[-1])
    prefix = loaded.prefix(VIEWS, HEIGHT, WIDTH)
    ids = torch.cat([torch.from_numpy(prefix.input_ids), torch.tensor(question)])
    native = loaded.model(**loaded.native_inputs(prefix, loaded.preprocess(_views(0)), ids), use_cache=False).logits
    assert ours.shape == native.shape
    assert (ours - native).abs().max() < 1e-4
    assert native.std() > 1e-3, "a constant model would pass any comparison"


@torch.no_grad()
def test_hidden_states_are_named_as_documented(built: Any) -> None:
    _, loaded, _ = built
    embeds, positions, mask = _whole(loaded, loaded.question_ids(QUESTIONS[0]))
    layers = [0, *range(1, loaded.num_layers + 1), -1, -2]
    states = loaded.language(embeds, positions, mask, layers=layers)
    assert torch.equal(states[0], embeds)
    assert torch.equal(states[-2], states[loaded.num_layers - 1])
    assert torch.allclose(loaded.model.model.language_model.norm(states[loaded.num_layers]), states[-1], atol=1e-6)
    with pytest.raises(ValueError, match="layer"):
        loaded.language(embeds, positions, mask, layers=[loaded.num_layers + 1])


@torch.no_grad()
def test_saved_and_reloaded_is_equal_bit_for_bit(built: Any, tmp_path: Path) -> None:
    member, loaded, _ = built
    loaded.save(tmp_path)
    again = member.load(tmp_path, device="cpu")
    again.model.eval()
    one, two = loaded.model.state_dict(), again.model.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    question = again.question_ids(QUESTIONS[0])
    assert question == loaded.question_ids(QUESTIONS[0])
    assert torch.equal(loaded.language(*_whole(loaded, question))[-1], again.language(*_whole(again, question))[-1])


def test_same_seed_same_weights_and_another_seed_others(built: Any) -> None:
    member, loaded, folder = built
    same, other = (member.build(folder, seed=s, device="cpu").model.state_dict() for s in (0, 1))
    own = loaded.model.state_dict()
    assert all(torch.equal(own[k], same[k]) for k in own)
    assert any(not torch.equal(own[k], other[k]) for k in own)


def test_each_visual_token_looks_where_the_grid_says(built: Any) -> None:
    """Attention across cells is silenced (zero output projections); one cell of one view is painted anew."""
    member, _, folder = built
    loaded = member.build(folder, seed=3, device="cpu")
    silenced = 0
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            vision = "visual." in name or "vision_tower." in name
            if vision and any(part in name for part in (".attn.proj.", ".self_attn.out_proj.", ".projection_layer.")):
                parameter.zero_()
                silenced += 1
    assert silenced
    grid = loaded.view_grid(HEIGHT, WIDTH)
    base = np.full((VIEWS, HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    rows, cols = grid.row_edges() * HEIGHT, grid.col_edges() * WIDTH

    @torch.no_grad()
    def tokens(rgb: np.ndarray) -> torch.Tensor:
        out = loaded.encode_views(loaded.preprocess(rgb)[None], HEIGHT, WIDTH)[0]
        return out.reshape(VIEWS, grid.rows, grid.cols, -1)

    before = tokens(base)
    for view, row, col in [(0, 0, 0), (1, 2, 1), (2, grid.rows - 1, grid.cols - 1), (1, 0, grid.cols - 1)]:
        changed = base.copy()
        # The middle half of the cell, so that the filter of the resizing does not reach the neighbours.
        top, bottom = (int(rows[row] + f * (rows[row + 1] - rows[row])) for f in (0.3, 0.7))
        left, right = (int(cols[col] + f * (cols[col + 1] - cols[col])) for f in (0.3, 0.7))
        changed[view, top:bottom, left:right] = (255, 0, 160)
        moved = (tokens(changed) - before).abs().amax(-1)
        assert np.unravel_index(int(moved.argmax()), moved.shape) == (view, row, col)
        moved[view, row, col] = 0
        assert moved.max() < 1e-5


def test_packed_questions_equal_separate_ones(built: Any) -> None:
    """Logits and gradients of three questions behind one prefix against three sequences of their own."""
    _, loaded, _ = built
    ground, coord = (loaded.tokenizer.convert_tokens_to_ids(name) for name in (GROUND_TOKEN, COORD_TOKEN))
    asked = [
        make_question(loaded.question_ids(q), loaded.answer_ids("a red lamp"), ground_id=ground, coord_id=coord)
        for q in QUESTIONS
    ]
    parameter = loaded.model.get_input_embeddings().weight

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, parameter)[0]

    prefix, embeds = _embeds(loaded)
    text = pack([asked])
    joined = torch.cat([embeds, loaded.embed(text.ids)], dim=1)
    positions = block_positions(torch.from_numpy(prefix.positions), prefix.next_position, text.offset)
    hidden = loaded.language(joined, positions, block_mask(embeds.shape[1], text.block))[-1][:, embeds.shape[1] :]
    packed = loaded.logits(hidden[0])
    separate = []
    for question in asked:
        states = loaded.language(*_whole(loaded, question.ids.tolist()))[-1]
        separate.append(loaded.logits(states[0, embeds.shape[1] :]))
    joined_separate = torch.cat(separate)
    assert (packed - joined_separate).abs().max() < 1e-5
    one, two = gradient(packed.logsumexp(-1).mean()), gradient(joined_separate.logsumexp(-1).mean())
    assert (one - two).abs().max() < 1e-5
    assert one.abs().max() > 1e-5


@torch.no_grad()
def test_reading_behind_a_cache_equals_the_whole_sequence(built: Any) -> None:
    _, loaded, _ = built
    prefix, embeds = _embeds(loaded, scenes=2)
    cache = encode_prefix(loaded, prefix, embeds)
    ids = [loaded.question_ids(q) for q in QUESTIONS]
    hidden = read_questions(loaded, cache, ids, rows=[1, 0, 0])
    whole = loaded.language(*_whole(loaded, ids[1]))[-1][0]
    assert (hidden[1, : len(ids[1])] - whole[len(prefix.input_ids) :]).abs().max() < 1e-5
    assert (cache.hidden[0] - whole[: len(prefix.input_ids)]).abs().max() < 1e-5
    other_scene = read_questions(loaded, cache, [ids[0]], rows=[0])
    assert (hidden[0, : len(ids[0])] - other_scene[0]).abs().max() > 1e-4, "rows must choose the scene"


@torch.no_grad()
def test_greedy_in_batches_equals_one_by_one_and_full_forward(built: Any) -> None:
    _, loaded, _ = built
    prefix, embeds = _embeds(loaded, scenes=2)
    cache = encode_prefix(loaded, prefix, embeds)
    ids = [loaded.question_ids(q) for q in QUESTIONS]
    rows = [0, 1, 0]
    texts = greedy(loaded, cache, ids, rows, max_new_tokens=6)
    assert texts == greedy(loaded, cache, ids, rows, max_new_tokens=6)
    assert texts == [greedy(loaded, cache, [i], [r], max_new_tokens=6)[0] for i, r in zip(ids, rows, strict=True)]
    assert texts == greedy(loaded, cache, ids, rows, max_new_tokens=6, batch_rows=2)
    grown = list(ids[0])
    for _ in range(6):
        token = int(loaded.logits(loaded.language(*_whole(loaded, grown))[-1][0, -1]).argmax())
        if token == loaded.tokenizer.eos_token_id:
            break
        grown.append(token)
    assert texts[0] == loaded.tokenizer.decode(grown[len(ids[0]) :], skip_special_tokens=True).strip()


def test_parts_tokenise_like_the_chat_template(built: Any) -> None:
    member, loaded, _ = built
    prefix = loaded.prefix(VIEWS, HEIGHT, WIDTH)
    per_view = loaded.view_grid(HEIGHT, WIDTH).count
    chat = member.chat
    for question, answer in [
        (QUESTIONS[0], "dark brown"),
        (f"Given an object located at {COORD_TOKEN} , describe it.", "3 chairs.\nAnd a lamp"),
        ("Identify it.\nthe  naïve 椅子 (left) …", GROUND_TOKEN),
        ("?!. 12", "…"),
    ]:
        messages = chat.messages(VIEWS, question)
        prompt = loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        count = per_view if chat.per_view else per_view * VIEWS + chat.trailing
        whole = loaded.tokenizer(prompt.replace(chat.visual, chat.visual * count) + answer + "<|im_end|>")["input_ids"]
        parts = [*prefix.input_ids.tolist(), *loaded.question_ids(question), *loaded.answer_ids(answer)]
        assert parts == whole


def test_prefix_marks_its_visual_tokens(built: Any) -> None:
    _, loaded, _ = built
    prefix = loaded.prefix(VIEWS, HEIGHT, WIDTH)
    grid = loaded.view_grid(HEIGHT, WIDTH)
    assert len(prefix.visual_index) == VIEWS * grid.count
    assert (np.diff(prefix.visual_index) > 0).all()
    assert prefix.positions.shape[1] == len(prefix.input_ids)
    assert prefix.next_position == prefix.positions.max() + 1


def test_vision_parameters_are_the_tower_only(built: Any) -> None:
    _, loaded, _ = built
    vision = {id(p) for p in loaded.vision_parameters()}
    names = [n for n, p in loaded.model.named_parameters() if id(p) in vision]
    assert names
    assert not any("language_model" in n or "projector" in n or "merger" in n or "lm_head" in n for n in names)
