"""The faults of the 3DRS reference implementation (commit 0401f547), one by one, each with the tests that it stays fixed.

``TESTS`` maps every fault to tests of this suite; those that stand nowhere else are here. A1 to A11 change results, B1 to B22
are limits and failures. Not in code at all: B6 and B7 are about one machine and about a package that is not used here.
"""

from __future__ import annotations

import ast
import copy
import os
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import KINDS, MemoryIndex, backbone, entry, group, samples, scene

from pipeline.backbones._transformers.prompts import INSTRUCTION, user_text
from pipeline.core import registry
from pipeline.evaluation.engine import Engine
from pipeline.scenes.index import SceneIndex
from pipeline.study.recipe import Recipe
from pipeline.training.data import Tokens, stack_scenes
from pipeline.training.model import SpatialMLLM

ROOT = Path(__file__).parents[3]
HERE = "unit/evaluation/test_reference_faults.py"
BENCH, TRAIN, EVAL = "unit/benchmarks/test_bench_", "unit/training/test_", "unit/evaluation/test_"
STEPS = f"{EVAL}train_predict_steps.py"
TESTS: dict[str, tuple[str, ...]] = {
    "A1": (
        f"{HERE}::test_the_instruction_stands_once_before_every_question",
        f"{EVAL}engine.py::test_grounding_probabilities_are_those_of_training",
        f"{EVAL}engine.py::test_generated_text_equals_naive_decoding",
        "golden/test_golden_prompts.py::test_prompt",
        f"{STEPS}::test_predictions_are_one_row_per_sample_in_order",
    ),
    "A2": (
        "unit/scenes/test_geometry.py::test_invalid_points_never_enter_a_mean",
        "parity/test_real_depth.py::test_unmasked_means_move_what_the_reference_moved",
        f"{TRAIN}training_data.py::test_entry_marks_invalid_cells_and_unseen_boxes",
    ),
    "A3": (f"{HERE}::test_building_a_prompt_changes_no_sample",),
    "A4": (
        f"{HERE}::test_geometry_keeps_its_precision_beside_a_bfloat16_model",
        f"{TRAIN}positions.py::test_numbers_are_integers_clamped_to_the_volume",
    ),
    "A5": (
        f"{BENCH}scan2cap.py::test_gated_captions_are_scored_as_empty_whatever_was_said",
        f"{EVAL}engine.py::test_gated_captions_are_never_asked",
        f"{STEPS}::test_captions_of_other_gates_are_refused",
    ),
    "A6": (
        "unit/features/test_feature_store.py::test_other_frames_are_refused_with_the_first_difference",
        f"{STEPS}::test_features_of_other_frames_are_refused_before_the_first_step",
        f"{STEPS}::test_a_run_of_other_frames_is_refused",
        "unit/benchmarks/test_score_step.py::test_answers_to_other_frames_are_refused",
    ),
    "A7": (
        "unit/optim/test_loop.py::test_batches_come_in_order_and_at_most_two_ahead",
        f"{STEPS}::test_scenes_without_features_are_refused",
        "unit/scenes/test_index.py::test_a_bad_frame_ends_a_command_with_exit_code_2_and_no_traceback",
    ),
    "A8": (
        f"{HERE}::test_unseen_boxes_have_an_appearance_of_their_own",
        f"{TRAIN}training_data.py::test_small_objects_take_the_cells_they_touch_and_unseen_ones_none",
    ),
    "A9": (
        "unit/benchmarks/test_score_step.py::test_predictions_that_do_not_fit_are_refused",
        "unit/benchmarks/test_score_step.py::test_a_file_that_was_exchanged_after_predicting_is_refused",
        "unit/benchmarks/test_score_step.py::test_answers_to_other_annotations_are_refused",
        f"{STEPS}::test_finished_benchmarks_are_kept_and_broken_ones_made_again",
    ),
    "A10": (
        f"{BENCH}multi3drefer.py::test_tuning_on_training_scenes_takes_the_best_probability",
        f"{STEPS}::test_tuning_looks_at_training_scenes_only",
    ),
    "A11": (
        f"{BENCH}scan2cap.py::test_reference_rouge_is_the_inflated_one",
        f"{BENCH}scan2cap.py::test_gated_captions_are_scored_as_empty_whatever_was_said",
    ),
    "B1": (
        "unit/features/test_feature_raw.py::test_memory_does_not_grow_with_the_number_of_scenes",
        f"{TRAIN}training_data.py::test_cache_is_bounded_and_drops_the_least_recently_used",
    ),
    "B2": ("unit/features/test_feature_store.py::test_chunks_are_views_and_uncompressed",),
    "B3": (f"{STEPS}::test_training_with_features_aligns_and_evaluation_needs_none",),
    "B4": (
        f"{TRAIN}training_data.py::test_groups_by_shape_and_pass_size",
        "unit/features/test_feature_parts.py::test_grid_option_of_a_store",
        "conformance/test_backbones.py::test_each_visual_token_looks_where_the_grid_says",
    ),
    "B5": (
        f"{TRAIN}training_data.py::test_boxes_are_padded_and_marked",
        f"{TRAIN}packing_equality.py::test_packed_equals_separate",
        f"{EVAL}engine.py::test_batching_changes_nothing",
    ),
    "B6": ("unit/core/test_device.py::test_a_gpu_that_is_not_there_is_told_by_every_command",),
    "B7": ("parity/test_vggt_golden.py::test_aggregator", "unit/teachers/test_vggt_network.py::test_grid_of_released_size"),
    "B8": (
        "unit/features/test_feature_resume.py::test_a_killed_writer_leaves_a_resumable_store",
        "unit/core/test_provenance.py::test_manifests_are_atomic_and_deterministic",
        f"{TRAIN}training_loop.py::test_resume_equals_an_uninterrupted_run_bit_for_bit",
    ),
    "B9": (f"{HERE}::test_no_launcher_kernel_or_collective_is_needed",),
    "B10": (f"{HERE}::test_no_launcher_kernel_or_collective_is_needed",),
    "B11": (f"{HERE}::test_every_trained_parameter_learns",),
    "B12": (f"{TRAIN}recipe.py::test_wrong_recipes_are_refused_with_a_reason",),
    "B13": (
        f"{TRAIN}sampler.py::test_balance_samples_uses_every_sample_once_per_epoch",
        f"{TRAIN}sampler.py::test_steps_can_be_planned_in_any_order",
    ),
    "B14": (
        "unit/scenes/test_frames.py::test_ties_follow_the_seed_only",
        "unit/scenes/test_frames.py::test_coverage_ignores_negative_items",
        "unit/scenes/test_frames.py::test_greedy_equals_python_sets",
    ),
    "B15": ("unit/teachers/test_weight_files.py::test_all_formats_give_the_same",),
    "B16": ("unit/datasets/test_scannet_objects.py::test_mask_boxes_equal_a_loop_and_empty_masks_are_counted",),
    "B17": (
        "unit/datasets/test_scannet_dataset.py::test_frames_keep_their_numbers_and_invalid_poses_are_counted",
        "unit/scenes/test_index.py::test_a_non_finite_pose_in_the_manifest_is_refused",
        f"{TRAIN}training_loop.py::test_non_finite_loss_names_step_and_samples",
    ),
    "B18": (
        "unit/training/test_losses.py::test_zero_vectors_give_no_nan_in_loss_or_gradient",
        "unit/training/test_losses.py::test_grounding_survives_extreme_temperature",
    ),
    "B19": (f"{HERE}::test_no_benchmark_writes_into_its_files",),
    "B20": ("unit/doctor/test_doctor_members.py::test_a_released_teacher_names_its_missing_file_and_licence",),
    "B21": (f"{HERE}::test_no_launcher_kernel_or_collective_is_needed",),
    "B22": ("unit/datasets/test_scannet_dataset.py::test_training_has_ground_truth_and_validation_has_the_first_masks",),
}


@pytest.mark.parametrize("fault", TESTS)
def test_the_tests_of_a_fault_exist(fault: str) -> None:
    for name in TESTS[fault]:
        path, _, test = name.partition("::")
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_every_fault_of_the_list_is_here() -> None:
    shared = Path(os.environ.get("PIPELINE_SHARED", ROOT.parent / "shared")) / "specs" / "reference_faults.md"
    if not shared.is_file():
        pytest.skip(f"no list of faults at {shared} (set PIPELINE_SHARED)")
    assert set(re.findall(r"^\| ([AB]\d+) \|", shared.read_text(encoding="utf-8"), re.MULTILINE)) == set(TESTS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_instruction_stands_once_before_every_question(kind: str) -> None:
    """A1: training and evaluation share the prefix with the instruction, and the same tokens follow it."""
    loaded = backbone(kind)
    ids = torch.as_tensor(loaded.prefix(2, 64, 64).input_ids).tolist()
    assert loaded.tokenizer.decode(ids).count(INSTRUCTION) == 1
    tokens = Tokens(loaded)
    for sample in samples():
        asked = loaded.question_ids(user_text(sample))
        assert list(tokens.training(sample).ids[: len(asked)]) == list(asked)
        assert INSTRUCTION not in loaded.tokenizer.decode(asked)


def test_building_a_prompt_changes_no_sample() -> None:
    """A3: a second visit of a sample, in the same process or another, asks the same thing."""
    found = samples()
    before = copy.deepcopy(found)
    assert [user_text(s) for s in found] == [user_text(s) for s in found] == [user_text(s) for s in before]
    assert found == before
    with pytest.raises(FrozenInstanceError):
        found[0].text = "changed"  # type: ignore[misc]


def test_geometry_keeps_its_precision_beside_a_bfloat16_model() -> None:
    """A4: positions are whole numbers of float32 points and boxes stay float64, whatever the model computes in."""
    made = SpatialMLLM(backbone(KINDS[0]), Recipe(precision="bfloat16"), teacher_dim=None, seed=0)
    room = scene("room0", objects=4)
    found = entry(room, made.loaded, made.recipe)
    reference = entry(room, backbone(KINDS[0]), Recipe())
    assert found.cell_means_m.dtype == torch.float32
    assert found.cell_voxels.dtype == found.box_voxels.dtype == torch.int64
    assert torch.equal(found.cell_voxels, reference.cell_voxels)
    assert torch.equal(found.pooling, reference.pooling)
    index = MemoryIndex([room])
    benchmark = registry.create("benchmarks", {"name": "scanrefer", "kind": "scanrefer", "options": {}})
    asked = [s for s in samples("room0", 4) if s.benchmark == "scanrefer"]
    (_, outputs) = next(iter(Engine(made.eval(), index, {"scanrefer": benchmark}, device="cpu").run({"scanrefer": asked})))  # type: ignore[arg-type]
    for _, output in outputs.values():
        assert output.boxes is not None
        assert output.boxes.dtype == np.float64
        assert np.array_equal(output.boxes, room.record.candidate_boxes())


def test_unseen_boxes_have_an_appearance_of_their_own() -> None:
    """A8: a box that no cell shows gets the learned embedding, not a zero vector."""
    made = SpatialMLLM(backbone(KINDS[0]), Recipe(world_positions=False), teacher_dim=None, seed=0)
    scenes = stack_scenes([entry(scene("room0", objects=3), made.loaded, made.recipe)])
    assert scenes.box_visible.tolist() == [[True, True, False]]
    visual = torch.randn(1, scenes.pooling.shape[2], made.loaded.hidden_size)
    features = made.object_features(scenes, visual, visual)
    assert torch.equal(features[0, 2], made.grounding.unseen)
    assert made.grounding.unseen.requires_grad
    assert made.grounding.unseen.abs().sum() > 0


def test_no_launcher_kernel_or_collective_is_needed() -> None:
    """B9, B10, B21: no DeepSpeed, no flash-attention package, no process group, nothing gathered or printed per step."""
    refused = {"deepspeed", "flash_attn", "xformers", "apex"}
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & refused, path
            assert not (isinstance(node, ast.Attribute) and node.attr in ("all_gather", "all_reduce", "broadcast_coalesced")), (
                path
            )


@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_parameter_learns(kind: str) -> None:
    """B11: nothing is created, marked as trained and saved that no loss reaches.

    But for the last norm of LLaVA's vision tower: the released class has it and takes the states before it.
    """
    made = SpatialMLLM(backbone(kind), Recipe(layers=(-1,)), teacher_dim=8, seed=0)
    room = scene("room0")
    batch = group([(room, entry(room, made.loaded, made.recipe, teacher_dim=8), samples("room0"))], made.loaded)
    made(batch, questions=6, scenes=1).total.backward()
    without = [name for name, p in made.named_parameters() if p.requires_grad and p.grad is None]
    assert [name for name in without if "vision_tower.post_layernorm" not in name] == []


def test_no_benchmark_writes_into_its_files(tiny_rooms: SceneIndex) -> None:
    """B19: reading, splitting into subsets and scoring leave every annotation file as it was."""
    files = sorted({path for path in (tiny_rooms.folder / "annotations").iterdir() if path.is_file()})
    before = [path.read_bytes() for path in files]
    for kind in tiny_rooms.content["annotations"]:
        if kind not in registry.member_files("benchmarks"):
            continue
        benchmark = registry.create("benchmarks", {"name": kind, "kind": kind, "options": {}})
        for split in tiny_rooms.content["annotations"][kind]:
            assert benchmark.samples(tiny_rooms, split)
        benchmark.training_samples(tiny_rooms)
    assert [path.read_bytes() for path in files] == before
