"""Scenes as tensors, pooling of boxes, bounded memory, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_helpers import MemoryFeatures, backbone, entry, memory_index, samples, scene, training_data

from pipeline.core.errors import AnnotationError
from pipeline.scenes.grid import resample_tokens
from pipeline.scenes.types import Sample
from pipeline.study.recipe import Recipe
from pipeline.training.data import object_columns, stack_scenes, target_columns
from pipeline.training.scenes import EntryCache, pooling_weights, scene_entry

KIND = "llava_onevision"


def test_cells_that_are_covered_enough_are_pooled_by_share() -> None:
    coverage = np.array([[[[0.5, 0.25], [0.1, 0.0]]]])
    weights, seen = pooling_weights(coverage, 0.125)
    np.testing.assert_allclose(weights, [[2 / 3, 1 / 3, 0, 0]], rtol=1e-6)
    assert seen.tolist() == [True]


def test_small_objects_take_the_cells_they_touch_and_unseen_ones_none() -> None:
    coverage = np.array([[[[0.03, 0.01], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    weights, seen = pooling_weights(coverage, 91 / 729)
    np.testing.assert_allclose(weights, [[0.75, 0.25, 0, 0], [0, 0, 0, 0]], rtol=1e-6)
    assert seen.tolist() == [True, False]


def test_entry_marks_invalid_cells_and_unseen_boxes() -> None:
    found = entry(scene(), backbone(KIND), Recipe())
    assert found.cell_valid.shape == (2 * 16,)
    assert not found.cell_valid[0], "the top left cell has no valid depth"
    assert found.cell_valid[1:16].all()
    assert found.box_visible.tolist() == [True, True, False]
    torch.testing.assert_close(found.pooling.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    assert found.cell_voxels.dtype == torch.int64


def test_teacher_tokens_are_resampled_in_image_coordinates() -> None:
    loaded, room, features = backbone(KIND), scene(), MemoryFeatures(confidence=True)
    boxes = room.record.candidate_boxes()
    area = scene_entry(room, boxes, loaded, Recipe(confidence_weighting=True), features)
    tokens = torch.from_numpy(features.read("room", room.record.frame_ids).tokens)
    expected = resample_tokens(tokens, features.grid, loaded.view_grid(64, 64), "area").flatten(0, 2)
    torch.testing.assert_close(area.teacher, expected)
    assert area.teacher_weights is not None
    assert area.teacher_weights.shape == (32,)
    adaptive = scene_entry(room, boxes, loaded, Recipe(resample="adaptive"), features)
    assert adaptive.teacher_weights is None
    assert not torch.allclose(adaptive.teacher, area.teacher)


def test_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    loaded = backbone(KIND)
    made: list[str] = []

    def make(scene_id: str):
        made.append(scene_id)
        return entry(scene(scene_id), loaded, Recipe())

    size = make("x").nbytes()
    made.clear()
    cache = EntryCache(make, limit_mb=1)
    room = 2**20 // size
    assert room >= 2, "the test's scenes must fit the smallest limit"
    names = [f"s{i}" for i in range(room + 1)]
    for name in names[:room]:
        cache.get(name)
    cache.get(names[0])
    cache.get(names[room])
    assert cache.nbytes <= 2**20
    assert made == names
    cache.get(names[0])
    assert made == names, "recently used entries stay"
    cache.get(names[1])
    assert made == [*names, names[1]], "the oldest one was dropped"


def test_boxes_are_padded_and_marked() -> None:
    loaded = backbone(KIND)
    batch = stack_scenes([entry(scene("a", objects=3), loaded, Recipe()), entry(scene("b", objects=5), loaded, Recipe())])
    assert batch.box_present.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert batch.pooling.shape == (2, 5, 32)
    assert not batch.pooling[0, 3:].any()


def test_groups_by_shape_and_pass_size() -> None:
    loaded = backbone(KIND)
    index = memory_index(4)
    odd = scene("wide", seed=9, views=3)
    index._scenes["wide"], index.records["wide"] = odd, odd.record
    recipe = Recipe(scenes_per_step=5, questions_per_scene=12, scenes_per_pass=3)
    groups = training_data(loaded, recipe, index).batch(0)
    assert sorted((g.scenes.views, len(g.scenes)) for g in groups) == [(2, 1), (2, 3), (3, 1)]
    assert sum(len(g.sample_ids) for g in groups) == 5 * 6


def test_positives_are_columns_of_targets() -> None:
    loaded = backbone(KIND)
    group = training_data(loaded, Recipe(scenes_per_step=1, questions_per_scene=12), memory_index(1)).batch(0)[0]
    rows = {group.sample_ids[number].split("|")[-1]: row for row, number in enumerate(group.text.ground_question.tolist())}
    assert group.positives[rows["0"]].tolist() == [False, True, False, False]
    assert group.positives[rows["1"]].tolist() == [False, False, False, True], "no target: the zero target"
    assert group.positives[rows["2"]].tolist() == [True, False, True, False]
    assert group.coord_box.tolist() == [1]


def test_unknown_target_is_named() -> None:
    sample = Sample("room|9|0", "room", "scanrefer", "grounding", target_ids=(9,))
    with pytest.raises(AnnotationError, match="object 9"):
        target_columns(sample, object_columns(scene().record))


def test_scenes_are_read_once() -> None:
    index = memory_index(3)
    data = training_data(backbone(KIND), Recipe(scenes_per_step=3, questions_per_scene=2), index)
    for step in range(3):
        data.batch(step)
    assert sorted(index.loads) == ["room0", "room1", "room2"]


def test_samples_of_the_helpers_cover_all_tasks() -> None:
    assert {s.task for s in samples()} == {"grounding", "caption", "qa"}
