"""Descriptions of 2D pretraining: what is read, what is asked, and that grounding's language part is learned from text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.core import registry
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import SceneObject
from pipeline.training.head import GroundingHead
from pipeline.training.pretrain2d.cells import TOKEN_NORM, CellWords
from pipeline.training.pretrain2d.referring import SOURCE, Referring, name_of, read_descriptions
from pipeline.training.pretrain2d.texts import dataset_texts, tokenizer_corpus
from pipeline.training.pretrain2d.views import read_views


@pytest.fixture(scope="module")
def loaded(tiny_rooms: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> LoadedTransformersModel:
    options = {"pretrain": {"dataset": "tiny_rooms", "vocabulary": 1000}}
    member = registry.create("backbones", {"name": "b", "kind": "qwen2_5_vl", "options": options})
    folder = tmp_path_factory.mktemp("referring")
    member.train_tokenizer(tokenizer_corpus(dataset_texts(tiny_rooms)), folder)
    return member.build(folder, seed=0, device="cpu")


@pytest.fixture(scope="module")
def words(tiny_rooms: SceneIndex, loaded: LoadedTransformersModel) -> CellWords:
    return CellWords(tiny_rooms, read_views(tiny_rooms), loaded)


def scenes(index: SceneIndex) -> list[str]:
    return [record.scene_id for record in index.split("train")]


def referring(index: SceneIndex, words: CellWords, loaded: LoadedTransformersModel, per_step: int = 16) -> Referring:
    return Referring(index, scenes(index), words, loaded, per_step=per_step, seed=0)


def test_descriptions_carry_the_name_of_their_object(tiny_rooms: SceneIndex) -> None:
    found = read_descriptions(tiny_rooms, scenes(tiny_rooms))
    files = tiny_rooms.annotation_files(SOURCE, "train")
    assert len(found) == sum(len(json.loads(path.read_text())) for path in files) > 30
    colours = [d for d in found if d.name[1] in d.text.split()]
    assert len(colours) > 0.5 * len(found), "most descriptions say the colour"
    first = scenes(tiny_rooms)[:1]
    assert {d.scene_id for d in read_descriptions(tiny_rooms, first)} == set(first), "held-out scenes are left out"


def test_a_choice_has_its_name_once_or_is_not_there(
    tiny_rooms: SceneIndex, words: CellWords, loaded: LoadedTransformersModel
) -> None:
    drawn = referring(tiny_rooms, words, loaded, per_step=400).draw(0)
    there = [choice.names.count(choice.name) for choice in drawn]
    assert set(there) == {0, 1}
    assert 0.08 < there.count(0) / len(there) < 0.25
    assert all(len(set(choice.names)) == len(choice.names) > 0 for choice in drawn)


def test_a_draw_depends_on_seed_and_step_alone(
    tiny_rooms: SceneIndex, words: CellWords, loaded: LoadedTransformersModel
) -> None:
    one, two = referring(tiny_rooms, words, loaded), referring(tiny_rooms, words, loaded)
    assert one.draw(3) == two.draw(3) != one.draw(4)


def test_queries_do_not_depend_on_the_batch(tiny_rooms: SceneIndex, words: CellWords, loaded: LoadedTransformersModel) -> None:
    """A short description beside a long one (padding) gives the state that it gives alone."""
    asked = referring(tiny_rooms, words, loaded)
    short, long = "the red chair.", "this is a blue table. it is next to the white door and below the window."
    with torch.no_grad():
        together, alone = asked.queries([short, long], "cpu"), asked.queries([short], "cpu")
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_stand_ins_of_names(words: CellWords) -> None:
    tokens = words.name_tokens([("chair", "red"), ("chair", "blue"), ("table", "white")], "cpu")
    torch.testing.assert_close(tokens.norm(dim=-1), torch.full((3,), TOKEN_NORM))
    cosines = torch.nn.functional.normalize(tokens, dim=-1) @ torch.nn.functional.normalize(tokens, dim=-1).T
    assert cosines[0, 1] > cosines[0, 2] + 0.2, "two chairs share a word"


def test_what_a_description_is_about_is_learned_from_text(
    tiny_rooms: SceneIndex, words: CellWords, loaded: LoadedTransformersModel
) -> None:
    asked = referring(tiny_rooms, words, loaded, per_step=32)
    torch.manual_seed(0)
    head = GroundingHead(loaded.hidden_size)
    optimizer = torch.optim.Adam([*loaded.decoder.parameters(), *head.parameters()], lr=1e-3)
    losses = []
    for step in range(80):
        loss = asked.loss(asked.draw(step), head, "cpu")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_descriptions_depend_on_the_name_at_coord(
    tiny_rooms: SceneIndex, words: CellWords, loaded: LoadedTransformersModel
) -> None:
    """After some steps the right name makes a description likelier than another room's thing does."""
    asked = referring(tiny_rooms, words, loaded, per_step=24)
    optimizer = torch.optim.Adam(loaded.model.parameters(), lr=1e-3)
    for step in range(60):
        loss = asked.describing_loss(asked.draw(step), "cpu")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    choices = asked.draw(100)
    others = [replace(choice, name=other.name) for choice, other in zip(choices, choices[1:] + choices[:1], strict=True)]
    with torch.no_grad():
        assert asked.describing_loss(choices, "cpu") < 0.9 * asked.describing_loss(others, "cpu")


def test_names_of_objects_without_a_colour() -> None:
    assert name_of(SceneObject(0, "chair", (0.0, 0.0, 0.0, 1.0, 1.0, 1.0), {})) == ("chair", "")
