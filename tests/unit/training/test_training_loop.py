"""The loop: learning, schedules, exact resume, paired runs, clear failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_helpers import MemoryFeatures, backbone, memory_index, training_data

from pipeline.core.errors import ConfigError, TrainingError
from pipeline.optim.loop import final_means
from pipeline.study.recipe import Recipe
from pipeline.training.loop import Trainer, make_optimizer
from pipeline.training.model import SpatialMLLM

KIND = "llava_onevision"
RECIPE = Recipe(steps=6, scenes_per_step=2, questions_per_scene=6, checkpoint_every_steps=2, vision_learning_rate=1e-4)


def trainer(folder: Path, recipe: Recipe = RECIPE, features=None, *, digest: str = "d", seed: int = 0) -> Trainer:
    torch.set_num_threads(1)
    loaded = backbone(KIND)
    model = SpatialMLLM(loaded, recipe, teacher_dim=features.dim if features else None, seed=seed)
    data = training_data(loaded, recipe, memory_index(), features, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(model, data, folder, steps=recipe.steps or 0, digest=digest, device="cpu")


def weights(found: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in found.model.state_dict().items()}


def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path: Path) -> None:
    whole, cut, resumed = (trainer(tmp_path / name, features=MemoryFeatures()) for name in ("whole", "cut", "cut"))
    losses = whole.run()
    cut.batch = lambda step: whole.batch(step) if step < 3 else 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        cut.run()
    for parameter in resumed.model.parameters():
        parameter.data.normal_()  # whatever was in memory must not matter
    assert resumed.run() == losses
    for name, expected in weights(whole).items():
        assert torch.equal(weights(resumed)[name], expected), name
    line = json.loads(whole.metrics.read_text().splitlines()[-1])
    assert line["step"] == 6
    assert set(line["learning_rate"]) == {"llm", "heads", "vision"}
    assert line["question_tokens_per_s"] > 0


def test_losses_fall_on_a_handful_of_questions(tmp_path: Path) -> None:
    recipe = Recipe(steps=18, scenes_per_step=4, questions_per_scene=6, learning_rate=3e-3)
    losses = trainer(tmp_path, recipe, MemoryFeatures()).run()
    first, final = losses[0], final_means(losses)
    for name in ("scanqa", "sqa3d", "scan2cap", "alignment"):
        assert final[name] < 0.8 * first[name], name


def test_a_teacher_changes_neither_questions_nor_shared_initialisation(tmp_path: Path) -> None:
    alone, taught = trainer(tmp_path / "none"), trainer(tmp_path / "teacher", features=MemoryFeatures())
    shared = weights(alone)
    assert {n for n in weights(taught) if n not in shared} == {n for n in weights(taught) if n.startswith("alignment.")}
    assert all(torch.equal(weights(taught)[name], value) for name, value in shared.items())
    for step in range(4):
        ours, theirs = alone.data.batch(step), taught.data.batch(step)
        assert [g.sample_ids for g in ours] == [g.sample_ids for g in theirs]
    # Before the first update the task losses are the same numbers; after it the alignment has moved the model.
    (first, _), (second, _) = (t.step(0, t.data.batch(0)) for t in (alone, taught))
    tasks = set(first) - {"loss"}
    assert {name: second[name] for name in tasks} == {name: first[name] for name in tasks}
    assert second["loss"] == pytest.approx(first["loss"] + 2.0 * second["alignment"])
    after = [t.step(1, t.data.batch(1))[0] for t in (alone, taught)]
    assert all(after[0][name] != after[1][name] for name in tasks)


def test_initialisation_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    loaded = backbone(KIND)
    SpatialMLLM(loaded, RECIPE, teacher_dim=8, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_passes_add_up_to_the_same_step(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "a", RECIPE, MemoryFeatures())
    split = trainer(tmp_path / "b", RECIPE.model_copy(update={"scenes_per_pass": 1}), MemoryFeatures())
    one, two = (t.step(0, t.data.batch(0)) for t in (whole, split))
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-6)
    assert one[1] == pytest.approx(two[1], rel=1e-4)


def test_non_finite_loss_names_step_and_samples(tmp_path: Path) -> None:
    found = trainer(tmp_path, features=MemoryFeatures(broken=("room1",)))
    with pytest.raises(TrainingError, match=r"the loss is not finite.*step \d of 6") as caught:
        found.run()
    assert "room1|" in str(caught.value)


def test_frozen_vision_tower_stays_and_the_projector_learns(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"vision_learning_rate": 0.0})
    found = trainer(tmp_path, recipe)
    vision = {id(p) for p in found.model.loaded.vision_parameters()}
    before = [(id(p), p.detach().clone(), p) for p in found.model.backbone.parameters()]
    for step in range(2):
        found.step(step, found.data.batch(step))
    changed = {key for key, old, new in before if not torch.equal(old, new)}
    assert not changed & vision
    assert any("projector" in n and id(p) in changed for n, p in found.model.backbone.named_parameters())
    assert {group["name"] for group in found.optimizer.param_groups} == {"llm", "heads"}


def test_groups_have_their_own_rates() -> None:
    recipe = RECIPE.model_copy(update={"head_learning_rate": 5e-3, "weight_decay": 0.1})
    model = SpatialMLLM(backbone(KIND), recipe, teacher_dim=8, seed=0)
    groups = {g["name"]: g for g in make_optimizer(model, recipe).param_groups}
    assert {n: g["peak"] for n, g in groups.items()} == {"llm": 2e-3, "heads": 5e-3, "vision": 1e-4}
    assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))
    assert all(g["weight_decay"] == 0.1 for g in groups.values())


def test_layer_out_of_range_is_refused() -> None:
    loaded = backbone(KIND)
    with pytest.raises(ConfigError, match="no layer 99"):
        SpatialMLLM(loaded, Recipe(layers=(99,)), teacher_dim=8, seed=0)


@pytest.mark.parametrize("layers", [(0,), (1, -2), (-1,)])
def test_alignment_at_any_layer_reaches_the_visual_projector(layers: tuple[int, ...], tmp_path: Path) -> None:
    found = trainer(tmp_path, RECIPE.model_copy(update={"layers": layers}), MemoryFeatures())
    group = found.data.batch(0)[0]
    losses = found.model(group, questions=12, scenes=2)
    assert losses.alignment is not None
    assert 0 < losses.alignment.item() < 2
    losses.total.backward()
    assert all(p.grad is not None for p in found.model.alignment.parameters())


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "a", RECIPE, MemoryFeatures())
    saving = trainer(tmp_path / "b", RECIPE.model_copy(update={"gradient_checkpointing": True}), MemoryFeatures())
    saving.model.train()
    assert saving.model.backbone.is_activation_checkpointing
    one, two = (t.step(0, t.data.batch(0)) for t in (plain, saving))
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-6)
    assert one[1] == pytest.approx(two[1], rel=1e-4)


def test_bfloat16_is_close_to_float32(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "a", RECIPE, MemoryFeatures())
    half = trainer(tmp_path / "b", RECIPE.model_copy(update={"precision": "bfloat16"}), MemoryFeatures())
    (one, _), (two, _) = (t.step(0, t.data.batch(0)) for t in (plain, half))
    assert two["loss"] == pytest.approx(one["loss"], rel=0.05)
