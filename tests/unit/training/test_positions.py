"""World-position encoding: voxel numbers and tables. Reference values: tests/parity/test_posenc_golden.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_helpers import scene

from pipeline.training.positions import WorldPositions, axis_table, clamped_centres, discretise


def test_numbers_are_integers_clamped_to_the_volume() -> None:
    points = np.array([[-20.0, 0.0, 0.0], [15.0, 15.0, 5.0], [0.04, -0.04, 0.06], [99.0, 99.0, 99.0]], dtype=np.float32)
    numbers = discretise(points)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [[0, 150, 50], [300, 300, 100], [150, 150, 51], [300, 300, 100]]


def test_what_is_clamped_is_counted() -> None:
    """A scan in millimetres: every camera but the one at the origin of x and every box stands at the volume's edge."""
    room = scene().record
    assert clamped_centres([room]) is None
    poses = room.world_from_camera.copy()
    poses[:, :3, 3] *= 1000
    boxes = tuple(replace(o, box=tuple(1000 * value for value in o.box)) for o in room.objects)
    found = clamped_centres([room, replace(room, scene_id="in_mm", world_from_camera=poses, objects=boxes)])
    assert found is not None
    assert found.startswith("5 of 10 cameras and boxes lie outside")
    assert "z -5 to 5 m" in found
    assert "1 scenes, first 'in_mm'" in found


def test_half_voxels_round_to_even() -> None:
    assert discretise(np.array([[-14.75, -14.25, -4.5]], dtype=np.float32)).tolist() == [[2, 8, 5]]


@pytest.mark.parametrize("width", [3, 128, 129, 130])
def test_parts_are_axes_and_the_tail_is_zero(width: int) -> None:
    encode = WorldPositions(width)
    numbers = torch.tensor([[10, 20, 30], [10, 25, 30]])
    found = encode(numbers)
    part = width // 3
    assert found.shape == (2, width)
    assert torch.equal(found[0, :part], found[1, :part]), "x part depends on x only"
    assert torch.equal(found[:, 3 * part :], torch.zeros(2, width - 3 * part))
    if part > 1:
        assert not torch.equal(found[0, part : 2 * part], found[1, part : 2 * part])


def test_table_alternates_sine_and_cosine() -> None:
    table = axis_table(5, 12)
    angle = torch.arange(5.0)
    torch.testing.assert_close(table[:, 0], angle.sin())
    torch.testing.assert_close(table[:, 1], angle.cos())
    torch.testing.assert_close(table[:, 2], (angle / 100).sin())


def test_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        WorldPositions(2)


def test_scale_multiplies_the_encoding() -> None:
    numbers = torch.tensor([[10, 20, 30]])
    torch.testing.assert_close(WorldPositions(12, scale=0.25)(numbers), 0.25 * WorldPositions(12)(numbers))
