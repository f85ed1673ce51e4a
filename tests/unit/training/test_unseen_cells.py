"""Cells of a student that the teacher did not see (crop, padding): weight 0, never a neighbour's token, counted and said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d
from training_helpers import MemoryIndex, backbone, scene

from pipeline.core.errors import StoreError
from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import IMAGE, TokenGrid, Window, area_matrices, resample_tokens, same_view, seen_cells
from pipeline.scenes.types import Scene
from pipeline.study.recipe import Recipe
from pipeline.teachers.base import TeacherFeatures
from pipeline.teachers.flare.config import RELEASED as FLARE
from pipeline.teachers.flare.images import image_rule as flare_rule
from pipeline.teachers.vggt.config import RELEASED_1B, VGGTConfig
from pipeline.teachers.vggt.images import image_rule as vggt_rule
from pipeline.training.data import stack_scenes
from pipeline.training.losses import alignment_loss, cosine_distance
from pipeline.training.scenes import scene_entry
from pipeline.training.unseen import count_unseen

STUDENT = TokenGrid(14, 14, (0.0, 0.0, 378 / 384, 378 / 384))
"""The paper's: LLaVA's tower does not see 6 of 384 pixels."""
PAD = VGGTConfig(images="pad")
LANDSCAPES = ((968, 1296), (480, 640), (518, 518), (1080, 1920))
DIM = 5
CROPPED: Window = (0.0, 0.2, 1.0, 0.8)


def vggt(*size: int, config: VGGTConfig = RELEASED_1B) -> TokenGrid:
    return vggt_rule(*size, config).grid


def flare(*size: int) -> TokenGrid:
    return flare_rule(*size, FLARE).grid


def largest_shift(source: TokenGrid, rows: slice) -> float:
    """Distance along y, in the student's cells, of the centres that are averaged from the cell's own, over some rows."""
    weights, _ = area_matrices(source, STUDENT)
    edges, own = source.row_edges(), STUDENT.row_edges()
    centres = weights @ ((edges[1:] + edges[:-1]) / 2)
    return float((np.abs(centres - (own[1:] + own[:-1]) / 2) / np.diff(own))[rows].max())


@pytest.mark.parametrize(("grid", "share", "was_off"), [(vggt(1296, 968), 0.29, 1.5), (flare(1296, 968), 0.43, 2.8)])
def test_portraits_3_to_4_vggt_29_percent_flare_43(grid: TokenGrid, share: float, was_off: float) -> None:
    seen = seen_cells(STUDENT, grid.window)
    assert round(float((~seen).mean()), 2) == share
    rows = np.flatnonzero(seen.all(1))
    assert largest_shift(grid, slice(rows[0], rows[-1] + 1)) < 0.28, "a quarter, and the teacher's own cells"
    edge, cell = grid.row_edges()[1], STUDENT.row_edges()[1]
    nearest = ((grid.window[1] + edge) / 2 - cell / 2) / cell
    assert nearest == pytest.approx(was_off, abs=0.05), "how far the first row's target was from it before"


@pytest.mark.parametrize("size", LANDSCAPES)
def test_images_as_the_papers_are_seen_whole_and_pooled_as_before(size: tuple[int, int]) -> None:
    for grid in (vggt(*size), vggt(*size, config=PAD), *([flare(*size)] if size[1] * 3 == size[0] * 4 else [])):
        assert seen_cells(STUDENT, grid.window).all()
    tokens = torch.randn(2, *(vggt(*size).rows, vggt(*size).cols), DIM)
    pooled = adaptive_avg_pool2d(tokens.permute(0, 3, 1, 2), (14, 14)).permute(0, 2, 3, 1)
    torch.testing.assert_close(resample_tokens(tokens, vggt(*size), STUDENT, "adaptive"), pooled, atol=1e-6, rtol=0)


def test_a_crop_of_two_columns_changes_no_weight() -> None:
    """FLARE keeps 512 of the 514 columns of a ScanNet frame."""
    grid = flare(968, 1296)
    assert grid.window[0] > 0
    assert seen_cells(STUDENT, grid.window).all()
    assert same_view(grid, STUDENT), "the paper's FLARE features were pooled adaptively"


@pytest.mark.parametrize("method", ["area", "adaptive"])
def test_no_padding_in_a_students_token(method: str) -> None:
    """VGGT pads a ScanNet frame with 4.5 of 37 rows of white above and below: 2 of 14 rows were nothing else."""
    grid = vggt(968, 1296, config=PAD)
    tokens = torch.zeros(1, 37, 37, 1)
    tokens[:, :4], tokens[:, -4:] = 100.0, 100.0
    plain = adaptive_avg_pool2d(tokens[..., 0], (14, 14))[0]
    assert int((plain == 100).all(1).sum()) == 2
    assert not resample_tokens(tokens, grid, STUDENT, method).any()
    ramp = torch.from_numpy(((grid.row_edges()[1:] + grid.row_edges()[:-1]) / 2).clip(0, 1)).float()
    found = resample_tokens(ramp[None, :, None, None].expand(1, 37, 37, 1), grid, STUDENT, method)[0, :, 0, 0]
    own = torch.from_numpy((STUDENT.row_edges()[1:] + STUDENT.row_edges()[:-1]) / 2).float()
    assert float((found - own).abs().max()) < 0.1 / 14, "every row is about its own place"


def test_adaptive_rows_of_a_cropped_portrait_are_about_their_own_place() -> None:
    grid = vggt(1296, 968)
    assert not same_view(grid, STUDENT)
    tokens = torch.randn(1, grid.rows, grid.cols, DIM)
    torch.testing.assert_close(
        resample_tokens(tokens, grid, STUDENT, "adaptive"), resample_tokens(tokens, grid, STUDENT), atol=0, rtol=0
    )


class Cropping:
    """Random features of a teacher whose crop of some scenes shows the middle of the image only."""

    dim = DIM

    def __init__(self, window: Window = CROPPED, *, confidence: bool = False, whole: tuple[str, ...] = ()):
        self.grid, self._whole, self._confidence = TokenGrid(9, 11, window), whole, confidence

    def seen(self, scene_id: str) -> Window:
        return IMAGE if scene_id in self._whole else self.grid.window

    def extras(self, scene_id: str) -> tuple[str, ...]:
        return ("confidence",) if self._confidence else ()

    def read(self, scene_id: str, frame_ids: tuple[str, ...]) -> TeacherFeatures:
        rng = np.random.default_rng(len(scene_id))
        tokens = rng.normal(size=(len(frame_ids), 9, 11, DIM)).astype(np.float32)
        confidence = rng.uniform(0.2, 1, tokens.shape[:3]).astype(np.float32) if self._confidence else None
        return TeacherFeatures(tokens, replace(self.grid, window=self.seen(scene_id)), confidence)


def entry_of(found: Scene, features: object, **recipe: object):
    return scene_entry(found, found.record.candidate_boxes(), backbone("internvl"), Recipe(**recipe), features)


def test_unseen_cells_have_weight_0_and_no_token() -> None:
    found = scene()
    target = backbone("internvl").view_grid(*found.record.image_size)
    seen = torch.from_numpy(seen_cells(target, CROPPED))
    assert 0 < seen.float().mean() < 1
    made = entry_of(found, Cropping())
    torch.testing.assert_close(made.teacher_weights, seen.float().expand(2, -1, -1).reshape(-1))
    outside = torch.from_numpy(area_matrices(Cropping().grid, target)[0].sum(1) == 0)
    assert not made.teacher.view(2, target.rows, target.cols, DIM)[:, outside].any(), "zeros, not the nearest token"
    assert entry_of(found, Cropping(IMAGE)).teacher_weights is None, "all seen: the unweighted loss, bit for bit"
    sure = entry_of(found, Cropping(confidence=True), confidence_weighting=True).teacher_weights
    assert ((sure > 0) == seen.expand(2, -1, -1).reshape(-1)).all()


def test_the_loss_is_the_mean_over_seen_cells() -> None:
    made = entry_of(scene(), Cropping())
    teacher, weights, seen = made.teacher[None], made.teacher_weights[None], made.teacher_weights.bool()
    student = torch.randn(teacher.shape, requires_grad=True)
    loss = alignment_loss(student, teacher, weights)
    torch.testing.assert_close(loss, cosine_distance(student, teacher)[0, seen].mean())
    loss.backward()
    assert not student.grad[0, ~seen].any()
    assert student.grad[0, seen].abs().sum(-1).min() > 0
    other = torch.where(seen[None, :, None], teacher, 7.0)
    assert alignment_loss(student, other, weights).item() == loss.item()


def test_a_whole_scene_beside_a_cropped_one_keeps_its_weights() -> None:
    """Shuffled features of scenes with images of another shape: one scene of a batch is cropped, the other is not."""
    features = Cropping(whole=("b",))
    entries = [entry_of(scene(name), features) for name in ("a", "b")]
    batch = stack_scenes(entries)
    assert batch.teacher_weights.shape == batch.teacher.shape[:2]
    torch.testing.assert_close(batch.teacher_weights[0], entries[0].teacher_weights)
    assert batch.teacher_weights[1].eq(1).all()


@pytest.mark.parametrize("stored", [(14, 14), (16, 12)])
def test_a_stored_student_grid_carries_the_same_weights(tmp_path: Path, stored: tuple[int, int]) -> None:
    native = vggt(1296, 968)
    student = TokenGrid(*stored)
    spec = StoreSpec("d", "t", "vggt", DIM, *stored, native=native, dtype="float32")
    random = np.random.default_rng(0)
    tokens = random.normal(size=(2, native.rows, native.cols, DIM)).astype(np.float32)
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("room", ("000", "001"), TeacherFeatures(tokens, native))
        writer.finish()
    reader = FeatureReader([tmp_path / "manifest.json"])
    found = reader.read("room", ("000", "001"))
    assert found.window == reader.seen("room") == native.window
    for target in (student, STUDENT, TokenGrid(4, 4)):
        assert (seen_cells(target, found.window) == seen_cells(target, native.window)).all()
    direct = resample_tokens(torch.from_numpy(tokens), native, student)
    torch.testing.assert_close(torch.from_numpy(found.tokens), direct, atol=1e-5, rtol=0)
    whole = replace(found, tokens=np.ones_like(found.tokens))
    again = resample_tokens(torch.from_numpy(whole.tokens), found.grid, STUDENT, "adaptive", found.seen)[0, :, 0, 0]
    seen = torch.from_numpy(seen_cells(STUDENT, found.window).all(1))
    torch.testing.assert_close(again[seen], torch.ones(int(seen.sum()))), "stored cells that hold nothing are not averaged in"


def test_scenes_of_one_store_with_images_of_several_sizes_have_their_own_windows(tmp_path: Path) -> None:
    portrait_grid, landscape = vggt(1296, 968), vggt(968, 1296)
    spec = StoreSpec("d", "t", "vggt", DIM, 14, 14, native=landscape, dtype="float32")
    with FeatureWriter(tmp_path / "shard", spec) as writer:
        for name, own in (("tall", portrait_grid), ("wide", landscape)):
            writer.write(name, ("000",), TeacherFeatures(np.ones((1, own.rows, own.cols, DIM), np.float32), own), own)
        writer.finish()
    source = tmp_path / "shard" / "manifest.json"
    reader = FeatureReader([source])
    assert {name: reader.seen(name) for name in ("tall", "wide")} == {"tall": portrait_grid.window, "wide": IMAGE}
    assert reader.read("tall", ("000",)).window == portrait_grid.window
    with FeatureWriter(tmp_path / "shard", spec) as again:
        assert again.is_done("tall")
        again.finish()
    view = tmp_path / "view.json"
    stands_in = {"wide": ViewEntry("tall", ("007",))}
    ViewManifest(replace(spec, kind="view"), stands_in, (source_reference(source, view),)).write(view)
    assert FeatureReader([view]).seen("wide") == portrait_grid.window, "the scene whose features these are says what was seen"
    content = json.loads(source.read_text())
    content["scenes"]["tall"]["seen"] = list(IMAGE)
    source.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="contradicts its own"):
        FeatureReader([source])


def portrait(name: str, height: int = 128) -> Scene:
    found = scene(name)
    return Scene(replace(found.record, image_size=(height, 64)), found.rgb, found.depth_m)


def test_the_share_is_counted_over_scenes_and_said_above_1_percent() -> None:
    loaded, index = backbone("internvl"), MemoryIndex([scene("a"), scene("b")])
    found = count_unseen(Cropping(whole=("b",)), index, ("a", "b"), loaded, Recipe())
    per_view = int((~seen_cells(loaded.view_grid(64, 64), CROPPED)).sum())
    assert (found.cells, found.out_of, found.scenes) == (2 * per_view, 4 * loaded.view_grid(64, 64).count, 1)
    (line,) = found.lines("vggt_1b", "internvl_tiny")
    assert f"{found.share:.1%} of the visual cells (1 scenes) have weight 0" in line
    assert "teacher 'vggt_1b', backbone 'internvl_tiny'" in line
    assert "y 0.20 to 0.80" in line
    assert count_unseen(Cropping(), index, ("b",), loaded, Recipe(weight=1)).lines("t", "b")
    assert not count_unseen(Cropping(IMAGE), index, ("a", "b"), loaded, Recipe(resample="adaptive")).lines("t", "b")
    doubtful = count_unseen(Cropping(), index, ("a",), loaded, Recipe(resample="adaptive", confidence_weighting=True))
    _, shifted, unweighted = doubtful.lines("t", "b")
    assert "averaged by exact overlap instead" in shifted
    assert "1 scenes have no confidence" in unweighted


def test_a_scene_without_a_seen_cell_is_refused() -> None:
    """A strip 10 times as tall as wide: VGGT keeps a tenth of its height, which is less than half of any cell of 4 rows."""
    window = vggt(5180, 518).window
    index = MemoryIndex([portrait("strip", 640)])
    loaded = backbone("internvl")
    assert loaded.view_grid(640, 64).rows == 4
    with pytest.raises(StoreError, match="saw none of the student's 16 cells of a view of scene 'strip'"):
        count_unseen(Cropping(window), index, ("strip",), loaded, Recipe())
