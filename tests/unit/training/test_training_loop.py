"""The loop: learning, schedules, exact resume, paired runs, clear failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_helpers import MemoryFeatures, backbone, memory_index, training_data

from pipeline.errors import ConfigError, TrainingError
from pipeline.training.loop import Trainer
from pipeline.training.model import SpatialMLLM
from pipeline.training.optimizer import make_optimizer, schedule_factor
from pipeline.training.recipe import Recipe

KIND = "llava_onevision"
RECIPE = Recipe(steps=6, scenes_per_step=2, questions_per_scene=6, checkpoint_every_steps=2, vision_learning_rate=1e-4)


class Stopped(Exception):
    """Stands for a killed process."""


def trainer(folder: Path, recipe: Recipe = RECIPE, features=None, *, digest: str = "d", seed: int = 0) -> Trainer:
    torch.set_num_threads(1)
    loaded = backbone(KIND)
    model = SpatialMLLM(loaded, recipe, teacher_dim=features.dim if features else None, seed=seed)
    data = training_data(loaded, recipe, memory_index(), features, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(model, data, folder, steps=recipe.steps or 0, digest=digest, device="cpu")


def weights(found: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in found.model.state_dict().items()}


def lines(folder: Path) -> list[dict]:
    timing = {"step_s", "question_tokens_per_s"}
    found = [json.loads(line) for line in (folder / "checkpoints" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timing} for line in found]


def interrupt(found: Trainer, at: int) -> None:
    """Run until ``at`` steps are finished and then fail as a killed process would."""
    step = found.step

    def stopping(number: int, groups):
        if number == at:
            raise Stopped
        return step(number, groups)

    found.step = stopping  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        found.run()


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path: Path, stop: int) -> None:
    whole = trainer(tmp_path / "whole", features=MemoryFeatures())
    final = whole.run()
    interrupt(trainer(tmp_path / "cut", features=MemoryFeatures()), stop)
    resumed = trainer(tmp_path / "cut", features=MemoryFeatures(), seed=0)
    for parameter in resumed.model.parameters():
        parameter.data.normal_()  # whatever was in memory must not matter
    assert resumed.run() == final
    for name, expected in weights(whole).items():
        assert torch.equal(weights(resumed)[name], expected), name
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_of_another_spec_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(trainer(tmp_path, digest="old"), 4)
    assert trainer(tmp_path, digest="old").checkpoints.latest() is not None
    fresh = trainer(tmp_path, digest="new")
    before = weights(fresh)
    assert not capsys.readouterr().err
    assert fresh._resume() == 0
    assert "another spec or other inputs: 4 finished steps are not used" in capsys.readouterr().err
    assert all(torch.equal(before[name], value) for name, value in weights(fresh).items())
    assert fresh.checkpoints.latest() is None


def test_damaged_checkpoint_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(trainer(tmp_path), 4)
    again = trainer(tmp_path)
    latest = again.checkpoints.latest()
    assert latest is not None
    content = (latest / "state.pt").read_bytes()
    (latest / "state.pt").write_bytes(content[: len(content) // 2])
    assert again.checkpoints.latest() is None
    assert "damaged" in capsys.readouterr().err


def test_a_checkpoint_that_tells_another_step_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One flipped bit of checkpoint.json would train other steps of the schedule, to other weights."""
    interrupt(trainer(tmp_path), 4)
    again = trainer(tmp_path)
    latest = again.checkpoints.latest()
    assert latest is not None
    facts = latest / "checkpoint.json"
    facts.write_text(facts.read_text().replace('"step": 4', '"step": 5'))
    assert again.checkpoints.latest() is None
    assert "damaged and not used" in capsys.readouterr().err


def test_damaged_metrics_of_a_stopped_run_cost_their_lines_only(tmp_path: Path) -> None:
    interrupt(trainer(tmp_path), 4)
    path = tmp_path / "checkpoints" / "metrics.jsonl"
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first.replace(b"step", b"st\xf5p") + second.replace(b'"step"', b'"stdp"') + b"3\n" + b"".join(rest))
    trainer(tmp_path).run()
    assert [line["step"] for line in lines(tmp_path)] == [3, 4, 5, 6]


def test_losses_fall_on_a_handful_of_questions(tmp_path: Path) -> None:
    recipe = Recipe(steps=18, scenes_per_step=4, questions_per_scene=6, learning_rate=3e-3)
    final = trainer(tmp_path, recipe, MemoryFeatures()).run()
    first = lines(tmp_path)[0]
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
    first, second = (t.step(0, t.data.batch(0)) for t in (alone, taught))
    assert first.benchmarks == second.benchmarks
    assert second.loss == pytest.approx(first.loss + 2.0 * second.alignment)
    assert alone.step(1, alone.data.batch(1)).benchmarks != taught.step(1, taught.data.batch(1)).benchmarks


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
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-4)


def test_non_finite_loss_names_step_and_samples(tmp_path: Path) -> None:
    found = trainer(tmp_path, features=MemoryFeatures(broken=("room1",)))
    with pytest.raises(TrainingError, match=r"the loss is not finite.*step \d of 6") as caught:
        found.run()
    assert "room1|" in str(caught.value)


def test_non_finite_gradient_is_refused(tmp_path: Path) -> None:
    found = trainer(tmp_path)
    weight = next(p for p in found.parameters if p.ndim == 2)
    weight.register_hook(lambda grad: grad * float("inf"))
    before = weights(found)
    with pytest.raises(TrainingError, match="the gradient is not finite"):
        found.step(0, found.data.batch(0))
    assert all(torch.equal(before[name], value) for name, value in weights(found).items()), "nothing was updated"


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


def test_schedule_warms_up_and_decays_to_zero() -> None:
    factors = [schedule_factor(step, 100, 0.03) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[3] == 1.0
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert 0 < factors[-1] < 0.001
    assert schedule_factor(0, 1, 0.0) == 1.0


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
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-4)


def test_bfloat16_is_close_to_float32(tmp_path: Path) -> None:
    plain = trainer(tmp_path / "a", RECIPE, MemoryFeatures())
    half = trainer(tmp_path / "b", RECIPE.model_copy(update={"precision": "bfloat16"}), MemoryFeatures())
    one, two = (t.step(0, t.data.batch(0)) for t in (plain, half))
    assert two.loss == pytest.approx(one.loss, rel=0.05)
