"""Q questions behind one shared prefix give the loss and the gradients of Q separate samples, for every backbone."""

from __future__ import annotations

import pytest
import torch
from training_helpers import KINDS, backbone, entry, group, samples, scene

from pipeline.study.recipe import Recipe
from pipeline.training.model import SpatialMLLM

TOLERANCE = 1e-5


def gradients(model: SpatialMLLM) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("world_positions", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_separate(kind: str, sparse: bool, world_positions: bool) -> None:
    torch.set_num_threads(1)
    loaded = backbone(kind)
    recipe = Recipe(world_positions=world_positions, layers=(-1, 2), vision_learning_rate=1e-4)
    model = SpatialMLLM(loaded, recipe, teacher_dim=8, seed=0)
    assert model.sparse_attention, "the tiny models must run with the attention that skips masked pairs"
    assert model.last_feed_forward, "the tiny models must skip rows that nothing reads"
    model.sparse_attention = sparse
    rooms = [scene(f"room{i}", seed=i, objects=3 + i) for i in range(2)]
    entries = [entry(room, loaded, recipe, teacher_dim=8, seed=i) for i, room in enumerate(rooms)]
    asked = [samples(room.scene_id, objects=len(room.record.objects)) for room in rooms]

    count = sum(map(len, asked))
    packed = model(group(list(zip(rooms, entries, asked, strict=True)), loaded), questions=count, scenes=2)
    packed.total.backward()
    together = gradients(model)
    assert packed.alignment is not None

    model.zero_grad(set_to_none=True)
    model.sparse_attention, model.last_feed_forward = False, None
    separate = [
        model(group([(room, e, [question])], loaded), questions=1, scenes=1)
        for room, e, questions in zip(rooms, entries, asked, strict=True)
        for question in questions
    ]
    total = torch.stack([losses.total for losses in separate]).mean()
    total.backward()
    alone = gradients(model)

    assert packed.total.item() == pytest.approx(total.item(), rel=TOLERANCE)
    torch.testing.assert_close(packed.questions, torch.cat([s.questions for s in separate]), rtol=TOLERANCE, atol=1e-5)
    assert together.keys() == alone.keys()
    for name, expected in alone.items():
        largest = max(expected.abs().max().item(), 1e-3)
        assert (together[name] - expected).abs().max().item() <= TOLERANCE * max(largest, 1.0), name
    frozen = {name for name, p in model.named_parameters() if name not in together}
    assert not {n for n in frozen if "grounding" in n or "alignment" in n}
