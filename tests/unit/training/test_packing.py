"""Packed rows: where tokens, targets and queries lie; the mask; the attention that skips masked pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.training.attention import attention, block_layout
from pipeline.training.packing import block_mask, block_positions, make_question, pack

GROUND, COORD, END = 90, 91, 92


def question(asked: list[int], told: list[int]):
    return make_question(asked, told, ground_id=GROUND, coord_id=COORD)


def test_text_question_predicts_every_answer_token_and_the_end() -> None:
    q = question([1, 2, 3], [7, 8, END])
    assert q.ids.tolist() == [1, 2, 3, 7, 8]
    assert q.targets.tolist() == [7, 8, END]
    assert q.ids[q.first :].tolist() == [3, 7, 8], "each input predicts the next target"
    assert (q.ground, q.coord) == (-1, -1)


def test_grounding_question_ends_at_its_query() -> None:
    q = question([1, 2], [GROUND, END])
    assert q.ids.tolist() == [1, 2, GROUND]
    assert len(q.targets) == 0, "no language loss"
    assert q.ids[q.ground] == GROUND


def test_coord_is_found() -> None:
    assert question([5, COORD, 6], [7, END]).coord == 1


def test_rows_point_at_the_right_tokens() -> None:
    first = [question([1, COORD], [7, END]), question([2], [GROUND, END])]
    second = [question([3, 4, 5], [8, 9, END])]
    text = pack([first, second], pad_id=0)
    flat = text.ids.flatten()
    assert text.ids.tolist() == [[1, COORD, 7, 2, GROUND], [3, 4, 5, 8, 9]]
    assert text.block.tolist() == [[0, 0, 0, 1, 1], [0] * 5]
    assert text.offset.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert flat[text.target_rows].tolist() == [COORD, 7, 5, 8, 9]
    assert text.target_ids.tolist() == [7, END, 8, 9, END]
    assert text.target_question.tolist() == [0, 0, 2, 2, 2]
    assert flat[text.ground_rows].tolist() == [GROUND]
    assert flat[text.coord_rows].tolist() == [COORD]
    assert (text.ground_question.tolist(), text.coord_question.tolist()) == ([1], [0])
    assert text.scene.tolist() == [0, 0, 1]


def test_shorter_rows_are_padded() -> None:
    text = pack([[question([1], [7, END])], [question([1, 2], [7, END])]])
    assert text.block.tolist() == [[0, 0, -1], [0, 0, 0]]


def test_mask_is_prefix_plus_own_block_causally() -> None:
    block = torch.tensor([[0, 0, 1, 1, -1]])
    mask = block_mask(2, block)[0, 0]
    expected = [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]
    assert mask.int().tolist() == expected


def test_positions_start_again_for_every_block() -> None:
    prefix = torch.tensor([[0, 1, 2], [0, 1, 1]])
    positions = block_positions(prefix, 5, torch.tensor([[0, 1, 0], [0, 0, 1]]))
    assert positions.shape == (2, 2, 6)
    assert positions[1, 0].tolist() == [0, 1, 1, 5, 6, 5]
    assert positions[0, 1].tolist() == [0, 1, 2, 5, 5, 6]


def test_sparse_attention_equals_the_dense_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [[5, 7, 9], [10, 20], [3, 3, 3, 3]]
    questions = [[make_question([1] * n, [GROUND], ground_id=GROUND, coord_id=COORD) for n in row] for row in lengths]
    text = pack(questions)
    total = 11 + text.ids.shape[1]
    q, k, v = (torch.randn(3, 2, total, 16, generator=generator).requires_grad_() for _ in range(3))
    used = torch.cat([torch.ones(3, 11, dtype=torch.bool), text.block >= 0], dim=1)[:, None, :, None]
    dense = scaled_dot_product_attention(q, k, v, block_mask(11, text.block))
    sparse, _ = attention(torch.nn.Identity(), q, k, v, block_layout(11, text.block, text.offset))
    sparse = sparse.transpose(1, 2)
    torch.testing.assert_close(sparse * used, dense * used, rtol=0, atol=2e-6)
    direction = torch.randn(dense.shape, generator=generator) * used
    ours = torch.autograd.grad((sparse * direction).sum(), (q, k, v))
    theirs = torch.autograd.grad((dense * direction).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=5e-6)


def test_sparse_attention_shares_keys_among_query_heads() -> None:
    text = pack([[make_question([1] * 4, [GROUND], ground_id=GROUND, coord_id=COORD)] * 2])
    layout = block_layout(3, text.block, text.offset)
    q, kv = torch.randn(1, 4, 13, 8), torch.randn(1, 2, 13, 8)
    grouped, _ = attention(torch.nn.Identity(), q, kv, kv, layout)
    repeated = kv.repeat_interleave(2, dim=1)
    plain, _ = attention(torch.nn.Identity(), q, repeated, repeated, layout)
    np.testing.assert_allclose(grouped.numpy(), plain.numpy(), atol=1e-6)
