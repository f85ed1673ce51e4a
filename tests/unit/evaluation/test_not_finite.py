"""A model that gives NaN has no answers: predict stops with the sample's name instead of a score of 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_engine import answers, benchmarks, model, questions
from training_helpers import MemoryIndex, memory_index

from pipeline.backbones._transformers.generate import NonFiniteLogitsError, encode_prefix, greedy
from pipeline.core.errors import PredictionError
from pipeline.evaluation.engine import Engine
from pipeline.scenes.types import ModelOutput
from pipeline.study.recipe import Recipe
from pipeline.training.data import stack_scenes
from pipeline.training.model import SpatialMLLM
from pipeline.training.scenes import scene_entry

BAD = [float("nan"), float("inf")]


def stop(made: SpatialMLLM, index: MemoryIndex, name: str) -> str:
    """What predict says when this benchmark is asked."""
    with pytest.raises(PredictionError, match="not finite numbers") as error:
        answers(made, index, {name: questions(index)[name]})
    return str(error.value)


@pytest.mark.parametrize("number", BAD)
@pytest.mark.parametrize("name", ["scanrefer", "multi3drefer"])
def test_grounding_logits(name, number):
    made = model()
    with torch.no_grad():
        next(iter(made.grounding.parameters())).fill_(number)
    said = stop(made, memory_index(), name)
    assert f"benchmark {name}, sample " in said
    assert "the logits of the candidates" in said
    assert "train the run again" in said


@pytest.mark.parametrize("number", BAD)
@pytest.mark.parametrize("name", ["scanqa", "sqa3d", "scan2cap"])
def test_answer_logits(name, number, monkeypatch):
    made = model()
    logits = made.loaded.logits
    monkeypatch.setattr(made.loaded, "logits", lambda hidden: logits(hidden) + number)
    assert "the logits of the answer" in stop(made, memory_index(), name)


def test_the_question_that_has_no_answer_is_named(monkeypatch):
    """One of several questions, not the first of its batch, and only at its second word."""
    made, index = model(), memory_index()
    record = next(iter(index))
    scenes = stack_scenes([scene_entry(index.load(record.scene_id), record.candidate_boxes(), made.loaded, Recipe())])
    with torch.no_grad():
        seen = made.encode_scene(scenes)
        cached = encode_prefix(made.loaded, seen.prefix, seen.embeds)
    plain, calls = made.loaded.logits, []

    def logits(hidden):
        calls.append(hidden)
        found = plain(hidden)
        if len(calls) == 2:
            found[1, 7] = float("nan")
        return found

    monkeypatch.setattr(made.loaded, "logits", logits)
    ids = [made.loaded.question_ids(text) for text in ("a much longer question than the other?", "short?", "neither nor?")]
    with pytest.raises(NonFiniteLogitsError) as error:
        greedy(made.loaded, cached, ids, [0, 0, 0], max_new_tokens=4)
    order = sorted(range(3), key=lambda i: len(ids[i]))
    assert error.value.place == order[1]


@pytest.mark.parametrize("number", BAD)
def test_states_of_visual_tokens(number, monkeypatch):
    made = model()
    language = made.loaded.language

    def broken(*args, **options):
        states = dict(language(*args, **options))
        return {layer: state + number if layer == 1 else state for layer, state in states.items()}

    monkeypatch.setattr(made.loaded, "language", broken)
    said = stop(made, memory_index(), "correspondence")
    assert "the model's states of visual tokens" in said
    assert "sample room0, scene room0" in said


def test_a_measurement_of_a_benchmark_of_ones_own(monkeypatch):
    made, index = model(), memory_index()
    members = benchmarks()
    own = members["correspondence"]
    monkeypatch.setattr(own, "measure", lambda *_: ModelOutput(value=np.nan, count=3))
    asked = {"correspondence": questions(index)["correspondence"]}
    with pytest.raises(PredictionError, match="what is measured"):
        list(Engine(made, index, members, device="cpu").run(asked))
    monkeypatch.setattr(own, "measure", lambda *_: replace(ModelOutput(), count=0))
    assert list(Engine(made, index, members, device="cpu").run(asked))  # a scene without pairs is none
