"""Pointing questions of 2D pretraining: right cells, mirrored views, absent objects, and a loss that can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.core import registry
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.cells import CellWords
from pipeline.training.pretrain2d.pointing import ABSENT, SHOWN, Pointing
from pipeline.training.pretrain2d.texts import dataset_texts, tokenizer_corpus
from pipeline.training.pretrain2d.views import Draw, read_views


@pytest.fixture(scope="module")
def words(tiny_rooms: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> CellWords:
    member = registry.create(
        "backbones", {"name": "b", "kind": "internvl", "options": {"pretrain": {"dataset": "tiny_rooms", "vocabulary": 1000}}}
    )
    folder = tmp_path_factory.mktemp("pointing")
    member.train_tokenizer(tokenizer_corpus(dataset_texts(tiny_rooms)), folder)
    return CellWords(tiny_rooms, read_views(tiny_rooms), member.build(folder, seed=0, device="cpu"))


@pytest.fixture(scope="module")
def pointing(words: CellWords) -> Pointing:
    return Pointing(words, words._loaded, per_view=5, seed=0)


def draw_of(index: SceneIndex, mirrored: bool = False, count: int = 6) -> Draw:
    views = tuple(read_views(index)[:count])
    return Draw(views, tuple(() for _ in views), tuple(mirrored for _ in views))


def test_mirrored_views_have_mirrored_cells(tiny_rooms: SceneIndex, words: CellWords) -> None:
    view = read_views(tiny_rooms)[0]
    names, plain = words.coverage(view, False)
    _, mirrored = words.coverage(view, True)
    assert len(names) == len(plain) == len(tiny_rooms.records[view.scene_id].objects)
    np.testing.assert_array_equal(mirrored.reshape(-1, 4, 4), plain.reshape(-1, 4, 4)[:, :, ::-1])


def test_questions_point_at_covered_cells_only(tiny_rooms: SceneIndex, words: CellWords, pointing: Pointing) -> None:
    drawn = draw_of(tiny_rooms)
    shown = absent = 0
    for view, questions in zip(drawn.views, pointing.draw(drawn, 0), strict=True):
        _, coverage = words.coverage(view, False)
        anything = coverage.max(0)
        assert len(questions) == 5
        for asked in questions:
            assert asked.question.ground == len(asked.question.ids) - 1
            assert len(asked.question.targets) == 0, "no language loss"
            assert (anything[asked.shown] >= SHOWN).all()
            assert asked.judged[asked.shown].all()
            assert not asked.judged[anything < ABSENT].size or asked.judged[anything < ABSENT].all()
            shown, absent = shown + bool(asked.shown.any()), absent + (not asked.shown.any())
    assert shown > absent > 0


def test_a_draw_depends_on_seed_and_step_alone(tiny_rooms: SceneIndex, words: CellWords, pointing: Pointing) -> None:
    def ids(which: Pointing, step: int) -> list[list[int]]:
        return [p.question.ids.tolist() for questions in which.draw(draw_of(tiny_rooms), step) for p in questions]

    again = Pointing(words, words._loaded, per_view=5, seed=0)
    assert ids(pointing, 3) == ids(again, 3)
    assert ids(pointing, 3) != ids(pointing, 4)


def test_the_loss_is_learned_where_queries_carry_the_answer(tiny_rooms: SceneIndex, pointing: Pointing) -> None:
    asked = pointing.draw(draw_of(tiny_rooms), 1)
    width = pointing._loaded.hidden_size
    torch.manual_seed(0)
    visual = torch.randn(len(asked), 16, width)
    flat = [(view, point) for view, points in enumerate(asked) for point in points]
    nothing = torch.randn(width)
    queries = torch.stack([visual[v][p.shown].mean(0) if p.shown.any() else nothing for v, p in flat])
    optimizer = torch.optim.Adam(pointing.head.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = pointing.loss(asked, visual, visual, queries)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
