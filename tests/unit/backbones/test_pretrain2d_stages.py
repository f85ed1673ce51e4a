"""The stages of 2D pretraining on annotated rooms: cell words, what each stage may change, resuming across stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.backbones._transformers.initial import EMBEDDING_STD, sine_positions
from pipeline.core import registry
from pipeline.scenes.geometry import unproject
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d import loop
from pipeline.training.pretrain2d.cells import MARGIN_M, TOKEN_NORM, CellWords
from pipeline.training.pretrain2d.run import pretrain
from pipeline.training.pretrain2d.texts import dataset_texts, sentences, tokenizer_corpus
from pipeline.training.pretrain2d.views import View, read_views

STAGES = {
    **{f"{stage}steps": 3 for stage in ("referring_", "reading_", "word_", "")},
    **{"referring_per_step": 8, "word_views_per_step": 8, "views_per_step": 4, "checkpoint_steps": 2},
}


def _member(**changes: Any) -> Any:
    options = {"pretrain": {"dataset": "tiny_rooms", "vocabulary": 1000, "held_out": 0.2, **STAGES, **changes}}
    return registry.create("backbones", {"name": "b", "kind": "llava_onevision", "options": options})


@pytest.fixture(scope="module")
def trainer(tiny_rooms: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> loop.Pretrainer:
    """A pretrainer at its start."""
    member, folder = _member(), tmp_path_factory.mktemp("stages")
    texts = dataset_texts(tiny_rooms)
    member.train_tokenizer(tokenizer_corpus(texts), folder)
    loaded = member.build(folder, seed=0, device="cpu")
    views, options = read_views(tiny_rooms), member.options.pretrain
    return loop.Pretrainer(loaded, tiny_rooms, views, sentences(texts), options, folder, "d", "cpu")


def test_targets_are_the_shares_of_the_pixels_objects(tiny_rooms: SceneIndex, trainer: loop.Pretrainer) -> None:
    """Views counted pixel by pixel: where a cell shows one object only, its two words share that object's weight."""
    checked = sum(_check_view(tiny_rooms, trainer.words, view) for view in read_views(tiny_rooms)[:8])
    assert checked > 3


def _check_view(index: SceneIndex, words: CellWords, view: View) -> int:
    """Number of cells compared."""
    scene = index.load(view.scene_id)
    record, frame = scene.record, scene.record.frame_ids.index(view.frame_id)
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    target = words.targets([view], [False])[0]
    assert torch.allclose(target.sum(-1), torch.ones(16), atol=5e-3)
    compared = 0
    for cell in range(16):
        row, col = divmod(cell, 4)
        pixels = (frame, slice(24 * row, 24 * row + 24), slice(32 * col, 32 * col + 32))
        shares = [_share(points[pixels], valid[pixels], thing.box) for thing in record.objects]
        best = int(np.argmax(shares))
        if shares[best] < 0.2 or sum(share > 0 for share in shares) > 1:
            continue
        thing, expected = record.objects[best], shares[best] / 2 / (shares[best] + 0.1 * (1 - shares[best]) + 1e-3)
        for word in (thing.category, thing.attributes["color"]):
            assert target[cell][words._columns[word]].sum() == pytest.approx(expected, abs=0.02)
        compared += 1
    return compared


def _share(points: np.ndarray, valid: np.ndarray, box: tuple[float, ...]) -> float:
    low = np.array(box[:3]) - np.array(box[3:]) / 2 - MARGIN_M
    high = np.array(box[:3]) + np.array(box[3:]) / 2 + MARGIN_M
    return float((valid & (points >= low).all(-1) & (points <= high).all(-1)).mean())


def test_mirrored_targets_have_mirrored_columns(tiny_rooms: SceneIndex, trainer: loop.Pretrainer) -> None:
    view = read_views(tiny_rooms)[1]
    plain, mirrored = trainer.words.targets([view, view], [False, True]).unflatten(1, (4, 4))
    assert torch.equal(plain.flip(1), mirrored)
    assert not torch.equal(plain, mirrored)


def test_true_tokens_say_their_words(tiny_rooms: SceneIndex, trainer: loop.Pretrainer) -> None:
    targets = trainer.words.targets(read_views(tiny_rooms)[:3], [False] * 3)
    true = trainer.words.true_tokens(targets, "cpu")
    assert torch.allclose(true.norm(dim=-1), torch.full((3, 16), TOKEN_NORM), atol=1e-4)
    with torch.no_grad():
        assert trainer.words.loss(true, targets) < trainer.words.loss(torch.randn_like(true), targets) - 1
    assert true.requires_grad, "stage 1 may move the words"


def test_each_stage_changes_only_what_it_should(trainer: loop.Pretrainer) -> None:
    def snapshot() -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in trainer.loaded.model.named_parameters()}

    def changed(before: dict[str, torch.Tensor]) -> set[str]:
        now = dict(trainer.loaded.model.named_parameters())
        return {n.split(".")[1] for n, p in before.items() if not torch.equal(p, now[n])}

    def losses(step: int) -> set[str]:
        found, _ = trainer.step(step, trainer.batch(step))
        return set(found) - {"loss"}

    assert [s.name for s in trainer.stages] == ["referring", "reading", "word", "answer"]
    before = snapshot()
    assert losses(0) == {"referring", "describing"}
    assert changed(before) == {"language_model"}
    before = snapshot()
    assert losses(3) == {"reading", "language", "pointing"}
    assert changed(before) == {"language_model", "image_newline"}
    before = snapshot()
    assert losses(6) == {"words"}
    assert changed(before) - {"image_newline"} == {"vision_tower", "multi_modal_projector"}
    before = snapshot()
    assert losses(9) == {"answers", "words", "language", "pointing"}
    assert changed(before) == {"language_model", "image_newline", "vision_tower", "multi_modal_projector"}
    rates = {g["name"]: g["lr"] for g in trainer.optimizer.param_groups}
    assert rates["vision"] == pytest.approx(0.1 * rates["language"])


def test_resuming_across_stages_gives_the_same_weights(
    tiny_rooms: SceneIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(_member(), tiny_rooms, tmp_path / "whole", digest="d", device="cpu")
    step = loop.Pretrainer.step
    done: list[int] = []

    def stopping(self: Any, number: int, batch: Any) -> Any:
        done.append(number)
        if done.count(7) == 1 and number == 7:
            raise KeyboardInterrupt
        return step(self, number, batch)

    monkeypatch.setattr(loop.Pretrainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(_member(), tiny_rooms, tmp_path / "parts", digest="d", device="cpu")
    figures = pretrain(_member(), tiny_rooms, tmp_path / "parts", digest="d", device="cpu")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert done == [*range(8), *range(6, 12)]
    assert figures == whole, "also the losses before it was stopped"
    assert not (tmp_path / "parts" / "checkpoints").exists()
    assert [point["step"] for point in figures["loss"]] == list(range(1, 13))
    assert {"caption", "category", "color", "count", "exists"} >= set(figures["held_out"])


def test_starting_values() -> None:
    table = sine_positions(3, 4, 16)
    assert table.shape == (12, 16)
    distances = torch.cdist(table, table) + torch.eye(12) * 9
    assert distances.min() > 0.1, "every place has a position of its own"
    near, far = distances[0, 1], distances[0, 3]
    assert near < far
    assert EMBEDDING_STD > 0
