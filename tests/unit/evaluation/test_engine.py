"""Inference equals training-time computation: same features, same prompts, same probabilities, batch by batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_helpers import KINDS, MemoryIndex, backbone, entry, group, memory_index, samples, scene

from pipeline.backbones._transformers.prompts import user_text
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.core import registry
from pipeline.evaluation import engine as engine_module
from pipeline.evaluation.engine import Engine
from pipeline.metrics.correspondence import correspondence
from pipeline.scenes import geometry
from pipeline.scenes.types import Sample
from pipeline.study.recipe import Recipe
from pipeline.training.data import stack_scenes
from pipeline.training.model import SpatialMLLM
from pipeline.training.packing import block_mask, block_positions

KIND = "llava_onevision"
NAMES = ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "correspondence")


def benchmarks(tokens: int = 6) -> dict:
    made = {}
    for name in NAMES:
        cls = registry.member_class("benchmarks", name)
        options = cls.options_model(**({"voxel_m": 0.5, "layer": 1} if name == "correspondence" else {}))
        made[name] = cls(name, options)
        if made[name].generation_tokens:
            made[name].generation_tokens = tokens
    return made


def questions(index: MemoryIndex) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in NAMES}
    for record in index:
        for sample in samples(record.scene_id, len(record.objects)):
            box = record.objects[1].box if sample.task == "caption" else None
            found[sample.benchmark].append(replace(sample, input_box=box))
        found["correspondence"].append(Sample(record.scene_id, record.scene_id, "correspondence", "representation"))
    return found


def model(kind: str = KIND, **options: object) -> SpatialMLLM:
    torch.set_num_threads(1)
    return SpatialMLLM(backbone(kind), Recipe(**options), teacher_dim=None, seed=3).eval()


def answers(made: SpatialMLLM, index: MemoryIndex, asked: dict[str, list[Sample]], tokens: int = 6) -> dict:
    outputs = {}
    for _, found in Engine(made, index, benchmarks(tokens), device="cpu").run(asked):
        outputs |= found
    return outputs


def naive_greedy(made: SpatialMLLM, found, sample: Sample, tokens: int) -> str:
    """One token at a time, everything computed again, no cache: what generation must equal."""
    loaded = made.loaded
    room = entry(found, loaded, made.recipe)
    scenes = stack_scenes([room])
    said: list[int] = []
    with torch.no_grad():
        seen = made.encode_scene(scenes)
        for _ in range(tokens):
            ids = torch.tensor([[*loaded.question_ids(user_text(sample)), *said]])
            embeds = loaded.embed(ids)
            rows = torch.flatten(ids == token_id(loaded.tokenizer, "<coord>")).nonzero()[:, 0]
            features = made.coord_features(scenes, seen.visual)
            embeds = made.mark_coords(embeds, rows, features, torch.zeros_like(rows), torch.ones_like(rows))
            block, offset = torch.zeros_like(ids), torch.arange(ids.shape[1])[None]
            positions = block_positions(torch.from_numpy(seen.prefix.positions), seen.prefix.next_position, offset)
            mask = block_mask(seen.embeds.shape[1], block)
            states = loaded.language(torch.cat([seen.embeds, embeds], 1), positions, mask)[-1]
            token = int(loaded.logits(states[0, -1]).argmax())
            if token == loaded.tokenizer.eos_token_id:
                break
            said.append(token)
    return loaded.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.mark.parametrize("world_positions", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_grounding_probabilities_are_those_of_training(kind: str, world_positions: bool) -> None:
    made = model(kind, world_positions=world_positions)
    rooms = [scene("room0", seed=0, objects=3), scene("room1", seed=1, objects=5)]
    index = MemoryIndex(rooms)
    asked = questions(index)
    outputs = answers(made, index, {name: asked[name] for name in ("scanrefer", "multi3drefer")})
    with torch.no_grad():
        all_asked = [samples(r.scene_id, len(r.record.objects)) for r in rooms]
        entries = [entry(r, made.loaded, made.recipe) for r in rooms]
        trained = made(group(list(zip(rooms, entries, all_asked, strict=True)), made.loaded), questions=12, scenes=2)
    losses = dict(zip([s.sample_id for r in rooms for s in samples(r.scene_id)], trained.questions.tolist(), strict=True))
    for (_, sample_id), (prompt, output) in outputs.items():
        sample = next(s for found in asked.values() for s in found if s.sample_id == sample_id)
        probabilities = output.probabilities
        assert len(probabilities) == len(output.boxes) + 1 == len(index.records[sample.scene_id].objects) + 1
        assert probabilities.sum() == pytest.approx(1.0)
        chosen = probabilities[list(sample.target_ids)].sum() if sample.target_ids else probabilities[-1]
        assert -np.log(chosen) == pytest.approx(losses[sample_id], rel=1e-4)
        assert prompt == user_text(sample)


@pytest.mark.parametrize("world_positions", [True, False])
def test_generated_text_equals_naive_decoding(world_positions: bool) -> None:
    made = model(world_positions=world_positions)
    index = memory_index(2)
    asked = questions(index)
    outputs = answers(made, index, {name: asked[name] for name in ("scan2cap", "scanqa", "sqa3d")}, tokens=5)
    for name in ("scan2cap", "scanqa", "sqa3d"):
        for sample in asked[name]:
            prompt, output = outputs[name, sample.sample_id]
            assert output.raw_text == naive_greedy(made, index.load(sample.scene_id), sample, 5), sample.sample_id
            assert prompt == user_text(sample)


def test_captions_depend_on_their_box(monkeypatch: pytest.MonkeyPatch) -> None:
    made, index = model(), memory_index(1)
    seen: list[torch.Tensor] = []
    logits = made.loaded.logits
    monkeypatch.setattr(made.loaded, "logits", lambda hidden: seen.append(logits(hidden)) or seen[-1])
    caption = questions(index)["scan2cap"][0]
    for box in (o.box for o in index.records["room0"].objects):
        answers(made, index, {"scan2cap": [replace(caption, input_box=box)]}, tokens=1)
    first, second, third = (step.flatten() for step in seen)
    assert (first - second).abs().max() > 1e-5
    assert (first - third).abs().max() > 1e-5


def test_boxes_that_are_not_candidates_can_be_captioned() -> None:
    made, index = model(), memory_index(1)
    caption = questions(index)["scan2cap"][0]
    own = (0.1, 2.0, 1.0, 0.5, 0.5, 0.5)
    asked = {"scan2cap": [replace(caption, input_box=own)], "scanrefer": questions(index)["scanrefer"]}
    outputs = answers(made, index, asked)
    grounding = next(output for (name, _), (_, output) in outputs.items() if name == "scanrefer")
    assert len(grounding.probabilities) == 4, "the extra box is no candidate"
    plain = answers(made, index, {"scanrefer": asked["scanrefer"]})
    expected = next(output for _, output in plain.values())
    np.testing.assert_allclose(grounding.probabilities, expected.probabilities, atol=1e-6)


@pytest.mark.parametrize("world_positions", [True, False])
def test_a_scene_without_any_candidate_is_answered_beside_others(world_positions: bool) -> None:
    """All of its masks may be empty, or nothing may be annotated: nothing can be found there, the rest goes on."""
    made = model(world_positions=world_positions)
    bare = scene("room0", seed=0)
    bare = replace(bare, record=replace(bare.record, proposals=np.zeros((0, 6))))
    for rooms in ([bare], [bare, scene("room1", seed=1)]):
        index = MemoryIndex(rooms)
        asked = questions(index)
        asked["scan2cap"] = [replace(s, input_box=None) if s.scene_id == "room0" else s for s in asked["scan2cap"]]
        outputs = answers(made, index, asked)
        assert len(outputs) == sum(map(len, asked.values()))
        made_of = {name: output for (name, sample_id), (_, output) in outputs.items() if sample_id.startswith("room0")}
        assert made_of["scanrefer"].probabilities.tolist() == [1.0]
        assert made_of["correspondence"].value is not None
        answer = benchmarks()["scanrefer"].parse(asked["scanrefer"][0], made_of["scanrefer"])
        assert (answer.boxes, answer.parsed) == ((), True)


def test_gated_captions_are_never_asked() -> None:
    made, index = model(), memory_index(1)
    gated = replace(questions(index)["scan2cap"][0], input_box=None)
    assert answers(made, index, {"scan2cap": [gated]}) == {("scan2cap", gated.sample_id): ("", engine_module.ModelOutput())}


def test_batching_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, index = model(), memory_index(3)
    asked = questions(index)
    together = answers(made, index, asked)
    monkeypatch.setattr(engine_module, "PREFIX_TOKENS", 1)
    monkeypatch.setattr(engine_module, "CACHE_TOKENS", 1)
    alone = answers(made, index, asked)
    assert together.keys() == alone.keys()
    for key, (prompt, output) in together.items():
        assert alone[key][0] == prompt
        assert alone[key][1].raw_text == output.raw_text
        if output.probabilities is not None:
            np.testing.assert_allclose(alone[key][1].probabilities, output.probabilities, atol=1e-5)
        if output.value is not None:
            assert alone[key][1].value == pytest.approx(output.value, abs=1e-5)


def test_correspondence_is_measured_on_the_asked_layer() -> None:
    made, index = model(), memory_index(1)
    outputs = answers(made, index, {"correspondence": questions(index)["correspondence"]})
    found = index.load("room0")
    room = entry(found, made.loaded, made.recipe)
    with torch.no_grad():
        seen = made.encode_scene(stack_scenes([room]))
        prefix = seen.prefix
        mask = torch.ones(len(prefix.input_ids), len(prefix.input_ids), dtype=torch.bool).tril()[None, None]
        states = made.loaded.language(seen.embeds, torch.from_numpy(prefix.positions)[:, None], mask, layers=(1,))[1]
    features = states[0, torch.from_numpy(prefix.visual_index)].numpy().reshape(2, 16, -1)
    voxels = geometry.voxel_ids(room.cell_means_m.numpy(), room.cell_valid.numpy(), 0.5).reshape(2, 16)
    expected = correspondence(features, voxels)
    _, output = outputs["correspondence", "room0"]
    assert output.count == expected.same_pairs > 0
    assert output.value == pytest.approx(expected.same_voxel, abs=1e-5)
    assert output.scores == pytest.approx((expected.different_voxel, expected.different_pairs), abs=1e-5)
