"""Every benchmark kind, built in or of a plug-in, on the built-in rooms: samples in, answers of all sorts scored."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.benchmarks.base import Benchmark
from pipeline.core import registry
from pipeline.metrics.boxes import best_proposal, iou
from pipeline.metrics.stats import Bootstrap
from pipeline.scenes.conventions import is_name
from pipeline.scenes.types import ModelOutput

KINDS = sorted(registry.member_files("benchmarks"))
OWN = ("correspondence", "multi3drefer", "scan2cap", "scanqa", "scanrefer", "sqa3d", "vsibench")
"""Kinds that promise reference levels beyond the interface."""
TASKS = {"grounding", "caption", "qa", "representation"}


def perfect_output(sample, record):
    """What a model would have to say to be as right as the candidates allow."""
    if sample.task == "representation":
        return ModelOutput(value=1.0, count=1, scores=(0.0, 1.0))
    if sample.task != "grounding":
        return ModelOutput(raw_text=sample.references[0])
    boxes = record.candidate_boxes()
    probabilities = np.zeros(len(boxes) + 1)
    for target in sample.target_ids:
        probabilities[iou(record.object(target).box, boxes)[0].argmax()] = 1.0
    probabilities[-1] = not sample.target_ids
    return ModelOutput(probabilities=probabilities / probabilities.sum(), boxes=boxes)


def made(kind):
    """A benchmark kind with defaults that suit the tests."""
    fields = registry.member_class("benchmarks", kind).options_model.model_fields
    options = {"meteor": False} if "meteor" in fields else {}  # METEOR has tests of its own
    if kind == "multi3drefer":
        options = {"cumulative_probability": 0.999999}  # so that several equal targets are all taken
    found = registry.create("benchmarks", {"name": kind, "kind": kind, "options": options})
    found.bootstrap = Bootstrap(50, 0)
    return found


@pytest.fixture(scope="module", params=KINDS)
def benchmark_of_rooms(request):
    return made(request.param)


def test_the_built_in_kinds_are_found():
    assert {"scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "vsibench", "correspondence"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_description(kind):
    cls = registry.member_class("benchmarks", kind)
    assert is_name(kind)
    assert issubclass(cls, Benchmark)
    assert cls.task in TASKS
    assert (cls.generation_tokens > 0) == (cls.task in ("caption", "qa"))
    assert all(field.description for field in cls.options_model.model_fields.values())


def test_samples_are_unique_and_of_the_split(benchmark_of_rooms, tiny_rooms):
    for split in ("val", "test"):
        samples = benchmark_of_rooms.samples(tiny_rooms, split)
        scenes = {record.scene_id for record in tiny_rooms.split(split)}
        assert samples
        assert {s.scene_id for s in samples} <= scenes
        assert len({s.sample_id for s in samples}) == len(samples)
        assert {s.benchmark for s in samples} == {benchmark_of_rooms.name}
        assert {s.task for s in samples} == {benchmark_of_rooms.task}
    assert benchmark_of_rooms.samples(tiny_rooms, "test") == benchmark_of_rooms.samples(tiny_rooms, "test")


def test_training_samples_have_targets(benchmark_of_rooms, tiny_rooms):
    samples = benchmark_of_rooms.training_samples(tiny_rooms)
    scenes = {record.scene_id for record in tiny_rooms.split("train")}
    assert {s.scene_id for s in samples} <= scenes
    assert bool(samples) == (benchmark_of_rooms.task != "representation")
    for sample in samples:
        assert bool(sample.answer) == (sample.task in ("caption", "qa"))
        assert (sample.input_box is not None) == (sample.task == "caption")


def scored(benchmark, samples, outputs, index):
    """(metric, subset, reference) -> result of outputs to samples."""
    answers = [benchmark.parse(s, o) for s, o in zip(samples, outputs, strict=True)]
    return {(r.metric, r.subset, r.reference): r for r in benchmark.score(samples, answers, index)}


USELESS = ModelOutput(raw_text=" ", value=float("nan"), count=1, probabilities=np.full(3, np.nan), boxes=np.zeros((2, 6)))


def test_perfect_answers_are_parsed_and_beat_useless_ones(benchmark_of_rooms, tiny_rooms):
    samples = benchmark_of_rooms.samples(tiny_rooms, "test")
    perfect = [perfect_output(s, tiny_rooms.records[s.scene_id]) for s in samples]
    found = scored(benchmark_of_rooms, samples, perfect, tiny_rooms)
    useless = scored(benchmark_of_rooms, samples, [USELESS] * len(samples), tiny_rooms)
    headline = found[benchmark_of_rooms.headline, "all", ""]
    assert found["unparsed", "all", ""].value == 0.0
    assert headline.n == len(samples)
    assert headline.n_scenes == len({s.scene_id for s in samples})
    assert headline.replicates.shape in ((50,), (0,))
    assert len(headline.replicates) or headline.per_sample, "replicates, or the values that `score` makes them of"
    assert useless["unparsed", "all", ""].value > 0.0
    if benchmark_of_rooms.task != "representation":
        assert headline.value > useless[benchmark_of_rooms.headline, "all", ""].value


@pytest.mark.parametrize("kind", OWN)
def test_own_benchmarks_reach_their_oracles(kind, tiny_rooms):
    """What the built-in ones promise beyond the interface: their references, gates and bounds."""
    found = made(kind)
    samples = found.samples(tiny_rooms, "test")
    assert {s.scene_id for s in samples} == {record.scene_id for record in tiny_rooms.split("test")}
    perfect = [perfect_output(s, tiny_rooms.records[s.scene_id]) for s in samples]
    best = {key: r.value for key, r in scored(found, samples, perfect, tiny_rooms).items()}
    useless = {key: r.value for key, r in scored(found, samples, [USELESS] * len(samples), tiny_rooms).items()}
    headline = (found.headline, "all", "")
    asked = [s.task != "caption" or s.input_box is not None for s in samples]
    assert useless["unparsed", "all", ""] == pytest.approx(100 * np.mean(asked))
    if found.task in ("grounding", "qa"):
        assert useless[headline] == 0.0
    if kind == "scanrefer":
        assert best[headline] == pytest.approx(best["acc@0.25", "all", "oracle"])
        assert best[headline] > best["acc@0.25", "all", "chance"]
    if kind == "multi3drefer":
        assert best[headline] > best["f1@0.25", "all", "chance"]
        assert best["f1@0.25", "zt_wo_d", ""] == 100.0
    if found.task == "qa":
        assert best[headline] == 100.0
        assert best[found.headline, "all", "type_majority"] < 100.0
    if found.headline == "em":
        assert best["em", "all", "best_constant"] <= best["em", "all", "type_majority"]
    if kind == "scan2cap":
        assert best["gated", "all", ""] == pytest.approx(100 * np.mean([s.input_box is None for s in samples]))
        assert best["rougeL@0.5", "all", ""] > 50.0


def test_gate_agrees_with_the_proposals(tiny_rooms):
    scan2cap = registry.create("benchmarks", {"name": "scan2cap", "kind": "scan2cap", "options": {}})
    for sample in scan2cap.samples(tiny_rooms, "test"):
        record = tiny_rooms.records[sample.scene_id]
        best = best_proposal(record.object(sample.target_ids[0]).box, record.candidate_boxes())
        assert (sample.input_box is None) == (best is None)
        if best is not None:
            assert sample.input_box == tuple(record.candidate_boxes()[best[0]])
