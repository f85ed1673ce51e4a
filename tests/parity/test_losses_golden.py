"""Alignment and grounding losses against values and gradients of the reference code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reference_data import cases, close, read_tensors

from pipeline.scenes.grid import TokenGrid, resample_tokens
from pipeline.training.head import AlignmentHead, GroundingHead
from pipeline.training.losses import alignment_loss, grounding_loss

SCALAR = 2e-6
"""Relative tolerance of a loss."""


def projected(tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> tuple[torch.Tensor, AlignmentHead, torch.Tensor]:
    """Student tokens (V*196, D) of the golden hidden states, the head, and the hidden states (leaf)."""
    hidden = tensors["input/hidden_states"].clone().requires_grad_()
    weight = tensors["weights/proj_3d.0.weight"]
    head = AlignmentHead(weight.shape[1], tensors["weights/proj_3d.2.weight"].shape[0], weight.shape[0] // weight.shape[1])
    head.layers.load_state_dict({k.removeprefix("weights/proj_3d."): v for k, v in tensors.items() if "weights/" in k})
    start, length = int(meta["visual_start"]), int(meta["visual_length"])
    visual = hidden[0, start : start + length].unflatten(0, (int(meta["views"]), 14, 15))[:, :, :-1]
    return head(visual.reshape(-1, hidden.shape[-1])), head, hidden


def target(tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> torch.Tensor:
    grid = TokenGrid(int(meta["grid_h"]), int(meta["grid_w"]))
    tokens = tensors["input/feature_3d"][0].unflatten(1, (grid.rows, grid.cols))
    return resample_tokens(tokens, grid, TokenGrid(14, 14), "adaptive").flatten(1, 2)


def check_gradients(tensors: dict[str, torch.Tensor], head: AlignmentHead, hidden: torch.Tensor) -> None:
    close(hidden.grad, tensors["grad/hidden_states"], "hidden states")
    for name, parameter in head.layers.named_parameters():
        close(parameter.grad, tensors[f"grad/proj_3d.{name}"], name)


@pytest.mark.parametrize("case", cases("losses/public/align_*.safetensors"))
def test_alignment_equals_the_reference_at_weight_two(case: Path) -> None:
    tensors, meta = read_tensors(case)
    student, head, hidden = projected(tensors, meta)
    teacher = target(tensors, meta)
    close(teacher, tensors["output/pooled_target"], "target")
    loss = 2.0 * alignment_loss(student[None], teacher.flatten(0, 1)[None])
    assert loss.item() == pytest.approx(tensors["output/loss_float64"].item(), rel=SCALAR)
    loss.backward()
    check_gradients(tensors, head, hidden)


@pytest.mark.parametrize("case", cases("losses/public/infonce_*.safetensors"))
def test_grounding_equals_the_reference(case: Path) -> None:
    tensors, meta = read_tensors(case)
    leaves = {name: tensors[f"input/{name}"].clone().requires_grad_() for name in ("object_features", "object_features_llm")}
    hidden = tensors["input/hidden_states"].clone().requires_grad_()
    head = GroundingHead(hidden.shape[-1], float(meta["temperature"]))
    for ours, theirs in (("object_mlp", "ground_head_obj"), ("query_mlp", "ground_head_query")):
        prefix = f"weights/{theirs}."
        getattr(head, ours).load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    head.zero_target.data.copy_(tensors["weights/ground_head_zero_target"])
    features = ((leaves["object_features"] + leaves["object_features_llm"]) / 2)[None]
    query = hidden[0, tensors["input/ground_token_position"]]
    logits = head(features, torch.ones(features.shape[:2], dtype=torch.bool), query, torch.zeros(1, dtype=torch.long))
    close(logits[0] * float(meta["temperature"]), tensors["output/scores"], "scores")
    positives = torch.zeros(logits.shape, dtype=torch.bool)
    positives[0, json.loads(meta["positives"])] = True
    loss = grounding_loss(logits, positives).sum()
    assert loss.item() == pytest.approx(tensors["output/loss_float64"].item(), rel=SCALAR)
    loss.backward()
    close(hidden.grad, tensors["grad/hidden_states"], "hidden states")
    close(head.zero_target.grad, tensors["grad/ground_head_zero_target"], "zero target")
    for name, leaf in leaves.items():
        close(leaf.grad, tensors[f"grad/{name}"], name)
