"""Alignment and grounding losses: definitions, edge cases, gradients. Reference values: tests/parity/test_losses_golden.py."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.training.head import AlignmentHead, GroundingHead
from pipeline.training.losses import alignment_loss, cosine_distance, grounding_logits, grounding_loss, mean_per_question


def test_distance_is_zero_one_two() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0]]).expand(3, -1)
    torch.testing.assert_close(cosine_distance(student, teacher), torch.tensor([0.0, 1.0, 2.0]))


def test_twice_the_distance_is_the_squared_distance_of_unit_vectors() -> None:
    a, b = torch.randn(7, 5), torch.randn(7, 5)
    squared = (a / a.norm(dim=-1, keepdim=True) - b / b.norm(dim=-1, keepdim=True)).square().sum(-1)
    torch.testing.assert_close(2 * cosine_distance(a, b), squared)


def test_zero_vectors_give_no_nan_in_loss_or_gradient() -> None:
    student = torch.zeros(1, 2, 4, requires_grad=True)
    loss = alignment_loss(student, torch.randn(1, 2, 4))
    loss.backward()
    assert loss.item() == 1.0
    assert torch.isfinite(student.grad).all()


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(1, 3, 4, requires_grad=True), torch.randn(1, 3, 4, requires_grad=True)
    alignment_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_weights_average_within_each_scene_before_scenes() -> None:
    student = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [1.0, 0.0]]])
    teacher = torch.tensor([1.0, 0.0]).expand(2, 2, 2)
    weights = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    # scene 0: (3*0 + 1*1) / 4; scene 1 has no weight and counts as 0
    assert alignment_loss(student, teacher, weights).item() == pytest.approx(0.25 / 2)
    assert alignment_loss(student, teacher).item() == pytest.approx((0.5 + 1.0) / 2)


def test_loss_is_float32_for_bfloat16_states() -> None:
    loss = alignment_loss(torch.randn(1, 2, 4).bfloat16(), torch.randn(1, 2, 4).bfloat16())
    assert loss.dtype == torch.float32


def test_grounding_loss_sums_positives_inside_the_logarithm() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5, -1.0]])
    e = logits.exp()[0]
    loss = grounding_loss(logits, torch.tensor([[True, False, True, False]]))
    assert loss.item() == pytest.approx(-math.log((e[0] + e[2]) / e.sum()), rel=1e-6)


def test_no_target_means_the_zero_column() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.1]])
    none, zero = torch.zeros(1, 3, dtype=torch.bool), torch.tensor([[False, False, True]])
    assert grounding_loss(logits, none).item() == grounding_loss(logits, zero).item()
    assert not none.any(), "the caller's tensor is not changed"


def test_grounding_survives_extreme_temperature() -> None:
    logits = grounding_logits(torch.eye(3)[None], torch.tensor([[1.0, 0, 0]]), torch.ones(1, 3, dtype=torch.bool), 1e-4)
    loss = grounding_loss(logits, torch.tensor([[False, True, False]]))
    assert loss.item() == pytest.approx(1e4, rel=1e-4)


def test_mean_per_question_counts_tokens_per_question() -> None:
    losses = mean_per_question(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 4)
    assert losses.tolist() == [2.0, 0.0, 5.0, 0.0]


def test_padding_candidates_change_nothing() -> None:
    head = GroundingHead(8)
    features, query = torch.randn(2, 3, 8), torch.randn(2, 8)
    scene = torch.tensor([0, 1])
    alone = head(features, torch.ones(2, 3, dtype=torch.bool), query, scene)
    padded = torch.cat([features, torch.full((2, 2, 8), 7.0)], dim=1)
    present = torch.tensor([[True] * 3 + [False] * 2] * 2)
    together = head(padded, present, query, scene)
    assert torch.isinf(together[:, 3:5]).all()
    torch.testing.assert_close(together[:, [0, 1, 2, 5]], alone)
    positives = torch.zeros(2, 6, dtype=torch.bool)
    positives[:, 1] = True
    loss = grounding_loss(together, positives).sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_head_shapes_follow_the_paper() -> None:
    head = AlignmentHead(6, 10, 2)
    assert [tuple(p.shape) for p in head.parameters()] == [(12, 6), (12,), (10, 12), (10,)]
    assert head(torch.randn(2, 3, 6)).shape == (2, 3, 10)
    assert sum(p.numel() for p in AlignmentHead(3584, 2048).parameters()) == pytest.approx(40.4e6, rel=0.01)
