"""``none`` and ``shuffled``."""

from __future__ import annotations

import pytest
from box_rooms import make_scene

from pipeline.core.errors import DataError
from pipeline.core.registry import create

IDS = [f"scene{i:04d}_00" for i in range(50)]


def shuffled(**options):
    return create("teachers", {"name": "shuffled", "kind": "shuffled", "options": options})


def test_none_has_no_features() -> None:
    teacher = create("teachers", {"name": "none", "kind": "none", "options": {}})
    assert (teacher.has_features, teacher.trained_in_workflow, teacher.is_view, teacher.dim) == (False, False, False, 0)
    with pytest.raises(TypeError, match="ask `has_features`"):
        teacher.encode(make_scene())


def test_scene_map_is_a_derangement_and_a_bijection() -> None:
    for count in (2, 3, 50):
        mapping = shuffled().scene_map(IDS[:count])
        assert sorted(mapping) == sorted(mapping.values()) == IDS[:count]
        assert all(scene != other for scene, other in mapping.items())


def test_scene_map_depends_on_the_seed_only() -> None:
    assert shuffled(seed=3).scene_map(IDS) == shuffled(seed=3).scene_map(IDS[::-1])
    assert shuffled(seed=3).scene_map(IDS) != shuffled(seed=4).scene_map(IDS)


def test_one_scene_cannot_be_shuffled() -> None:
    with pytest.raises(DataError, match="among 1 scenes"):
        shuffled().scene_map(IDS[:1])


def test_shuffled_is_derived() -> None:
    teacher = shuffled(of="vggt_rooms")
    assert (teacher.is_view, teacher.source(), teacher.trained_in_workflow) == (True, "vggt_rooms", False)
    assert "vggt_rooms" in teacher.feature_layer()
