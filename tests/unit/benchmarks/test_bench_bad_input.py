"""Bad input to every benchmark: a clear message or a counted row, never a wrong number."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.benchmarks._annotations import LONGEST_TEXT, _usable_text, check_objects
from pipeline.core import registry
from pipeline.core.errors import AnnotationError, DataError, PipelineError
from pipeline.scenes.types import Answer, ModelOutput, SceneObject

REFER = {"scene_id": "room0", "object_id": "0", "object_name": "chair", "ann_id": "0", "description": "a chair", "token": ["a"]}
MULTI = {
    "scene_id": "room0",
    "object_ids": [0],
    "object_name": "chair",
    "ann_id": 0,
    "description": "a chair",
    "eval_type": "st_w_d",
}
SCANQA = {"question_id": "q0", "scene_id": "room0", "question": "What?", "answers": ["red"], "object_ids": [0]}
SQA_QUESTION = {
    "question_id": 1,
    "scene_id": "room0",
    "situation": "I stand.",
    "alternative_situation": [],
    "question": "What?",
}
SQA_ANSWER = {"question_id": 1, "scene_id": "room0", "answers": [{"answer": "red"}]}
VSI = {
    "id": 1,
    "dataset": "scannet",
    "scene_name": "room0",
    "question_type": "object_counting",
    "question": "How many?",
    "options": None,
    "ground_truth": "2",
}
ENTRIES = {
    "scanrefer": REFER,
    "scan2cap": REFER,
    "multi3drefer": MULTI,
    "scanqa": SCANQA,
    "sqa3d": SQA_QUESTION,
    "vsibench": VSI,
}
SCENE_KEY = {"vsibench": "scene_name"}
TEXT_KEY = {"scanrefer": "description", "scan2cap": "description", "multi3drefer": "description"}


def files_of(kind, *entries):
    """Annotation files of one benchmark with these entries; sqa3d gets the annotations that go with its questions."""
    if kind != "sqa3d":
        return {f"{kind}.json": list(entries)}
    answers = [SQA_ANSWER | {k: e[k] for k in ("question_id", "scene_id") if k in e} for e in entries]
    return {"questions.json": {"questions": list(entries)}, "annotations.json": {"annotations": answers}}


@pytest.fixture
def read(make_index, member, record):
    """``read(kind, *entries)``: index, benchmark and a function that gives its samples."""

    def made(kind, *entries, files=None, scenes=None):
        given = files if files is not None else files_of(kind, *entries)
        index = make_index(scenes or [record("room0", ["chair"] * 2)], {kind: {"test": given}})
        benchmark = member(kind, **({"meteor": False} if kind in ("scanqa", "scan2cap") else {}))
        return index, benchmark, lambda: benchmark.samples(index, "test")

    return made


@pytest.fixture(params=sorted(ENTRIES))
def kind(request):
    return request.param


def test_the_entries_here_are_good(read, kind):
    _, _, samples = read(kind, ENTRIES[kind])
    assert len(samples()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"scene_id": "room0", ', "is not valid JSON"),
        ("", "is not valid JSON"),
        ("\u0000", "is not valid JSON"),
        ("[" * 200_000, "is not usable JSON"),
        ('[{"scene_id": ' + "9" * 5000 + "}]", "is not usable JSON"),
        ('{"a": 1}', "does not hold a list|neither 'questions'"),
        ("3", "does not hold a list|neither 'questions'"),
        ("[3]", "is not an object|neither 'questions'"),
    ],
)
def test_malformed_files_name_the_file(read, kind, text, message):
    names = list(files_of(kind, ENTRIES[kind]))
    _, _, samples = read(kind, files={names[0]: text} | dict.fromkeys(names[1:], "[]"))
    with pytest.raises(AnnotationError, match=message) as caught:
        samples()
    assert names[0] in str(caught.value)


def test_a_file_that_is_not_text_and_one_that_is_a_folder(read, kind):
    index, _, samples = read(kind, ENTRIES[kind])
    path = index.annotation_files(kind, "test")[0]
    good = path.read_bytes()
    del index.content["annotation_files"][path.name]  # another digest is refused before the file is read
    path.write_bytes(b"\xef\xbb\xbf" + good)
    assert len(samples()) == 1  # a byte order mark is no fault
    path.write_bytes(good + b"\xff\xfe")
    with pytest.raises(AnnotationError, match="not valid JSON"):
        samples()
    path.unlink()
    with pytest.raises(AnnotationError, match="is missing"):
        samples()
    path.mkdir()
    with pytest.raises(AnnotationError, match="cannot be read"):
        samples()


NO_ID = "not a valid id"


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ("room9", "not in the prepared split"),
        ("../room0", NO_ID),
        ("/etc/passwd", NO_ID),
        ("room0/..", NO_ID),
        ("", NO_ID),
        (None, NO_ID),
        (["room0"], NO_ID),
        ("\u623f\u95f4", NO_ID),
    ],
)
def test_unknown_scenes_and_ids_with_path_parts(read, kind, scene, message):
    _, _, samples = read(kind, ENTRIES[kind] | {SCENE_KEY.get(kind, "scene_id"): scene})
    with pytest.raises(AnnotationError, match=message):
        samples()


@pytest.mark.parametrize("number", [7, -1, "x", 1.5, None, True, "9" * 5000, float("nan"), "\u0661"])
def test_unknown_and_malformed_objects(read, number):
    for name, key, value in (("scanrefer", "object_id", number), ("scan2cap", "object_id", number),
                             ("multi3drefer", "object_ids", [number]), ("scanqa", "object_ids", [number])):  # fmt: skip
        _, _, samples = read(name, ENTRIES[name] | {key: value})
        with pytest.raises(AnnotationError, match=r"object 7 is not in scene|is .*|not a whole number"):
            samples()


CONTROL = ["end <|im_end|>", "<coord> of it", "a <image>", "</img>", "<IMG_CONTEXT>", "<|image_pad|>"]


@pytest.mark.parametrize("text", ["", " \n", None, 3, ["a"], "half \ud83d of a character", *CONTROL])
def test_texts_that_are_none(read, kind, text):
    key = TEXT_KEY.get(kind, "question")
    _, _, samples = read(kind, ENTRIES[kind] | {key: text})
    with pytest.raises(AnnotationError, match="a string that is not blank"):
        samples()


def test_a_text_that_would_take_gigabytes_is_refused_with_its_entry(read, kind):
    """20,000 characters in one description made 2D pretraining ask for 29 GB."""
    key = TEXT_KEY.get(kind, "question")
    _, _, samples = read(kind, ENTRIES[kind] | {key: "a chair " * (LONGEST_TEXT // 8)})
    assert len(samples()) == 1
    _, _, samples = read(kind, ENTRIES[kind] | {key: "a chair " * 2500})
    with pytest.raises(AnnotationError, match=f"'{key}' has 20,000 bytes of text") as caught:
        samples()
    assert "entry 0" in str(caught.value)
    assert "at most 4,000 bytes" in str(caught.value)


@pytest.mark.parametrize("text", ["a < b > c", "is 3 <4>?", "<b>bold</b>", "|x|", "<3", "\U0001f600 \u6905\u5b50?"])
def test_marks_and_other_scripts_are_texts(read, kind, text):
    _, _, samples = read(kind, ENTRIES[kind] | {TEXT_KEY.get(kind, "question"): text})
    assert len(samples()) == 1


@pytest.mark.parametrize("kind", registry.member_files("backbones"))
def test_no_control_token_of_a_backbone_passes_for_a_text(kind):
    chat = registry.create("backbones", {"name": kind, "kind": kind, "options": {}}).chat
    for token in chat.special_tokens():
        assert not _usable_text(f"what is {token} here?"), token


def test_duplicates_and_missing_keys(read, kind):
    entry = ENTRIES[kind]
    _, _, samples = read(kind, entry, copy.deepcopy(entry))
    with pytest.raises(AnnotationError, match="comes twice") as caught:
        samples()
    assert "entry 1" in str(caught.value)
    for key in entry:
        if key in ("token", "dataset", "options", "alternative_situation"):
            continue
        _, _, samples = read(kind, {k: v for k, v in entry.items() if k != key})
        with pytest.raises(AnnotationError, match=r"is missing|has no annotation|no question"):
            samples()


def test_an_empty_set_is_refused_and_so_is_one_without_prepared_scenes(read, member, kind):
    _, _, samples = read(kind)
    with pytest.raises(AnnotationError, match="has no entry for split 'test'"):
        samples()
    index, _, _ = read(kind, ENTRIES[kind] | {SCENE_KEY.get(kind, "scene_id"): "room9"})
    with pytest.raises(AnnotationError, match="has no entry for split 'test'"):
        member(kind, skip_missing_scenes=True).samples(index, "test")


def test_scoring_nothing_gives_no_number(read, kind):
    index, benchmark, _ = read(kind, ENTRIES[kind])
    assert benchmark.score([], [], index) == []


@pytest.mark.parametrize("wrong", [(0, 0, 0, -1, 1, 1), (0, 0, 0, -1, -1, 1), (1e300, 0, 0, 1, 1, 1)])
def test_scenes_with_impossible_boxes_are_refused(read, record, kind, wrong):
    scene = record("room0", ["chair"] * 2)
    for broken, what in (
        (replace(scene, objects=(scene.objects[0], SceneObject(1, "chair", wrong))), "object 1 of scene room0"),
        (replace(scene, proposals=np.array([(0.0, 0, 0, 1, 1, 1), wrong])), "proposal 1 of scene room0"),
    ):
        _, _, samples = read(kind, ENTRIES[kind], scenes=[broken])
        with pytest.raises(DataError, match=what):
            samples()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_in_a_scene(record, number):
    scene = replace(record("room0", ["chair"]), proposals=np.array([(0.0, 0, 0, 1, 1, number)]))
    with pytest.raises(DataError, match="proposal 0 of scene room0 has the box"):
        check_objects(scene, "manifest.json")


@pytest.mark.parametrize("wrong", ["x", None, [], True, 10**400])
def test_boxes_of_a_manifest_that_are_no_numbers(record, wrong):
    scene = record("room0", ["chair"])
    with pytest.raises(DataError, match="object 0 of scene room0 has the box"):
        check_objects(replace(scene, objects=(SceneObject(0, "chair", (0, 0, 0, 1, 1, wrong)),)), "manifest.json")


def test_an_object_id_that_comes_twice_in_a_scene_is_refused(read, record, kind):
    scene = record("room0", ["chair"] * 2)
    broken = replace(scene, objects=(scene.objects[0], SceneObject(0, "lamp", scene.objects[1].box)))
    _, _, samples = read(kind, ENTRIES[kind], scenes=[broken])
    with pytest.raises(DataError, match="object id 0 comes twice in scene room0"):
        samples()


GOOD_BOXES = np.array([[0.0, 0, 0, 1, 1, 1], [5.0, 0, 0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("boxes", "probabilities"),
    [
        (GOOD_BOXES, [0.5, float("nan"), 0.5]),
        (GOOD_BOXES, [0.5, float("inf"), 0.5]),
        (GOOD_BOXES, [0.5, -0.1, 0.6]),
        (GOOD_BOXES, [0.5, 0.5]),
        (GOOD_BOXES, None),
        (GOOD_BOXES, [[0.5, 0.3, 0.2]]),
        (GOOD_BOXES, "abc"),
        (None, [1.0]),
        (GOOD_BOXES * [1, 1, 1, -1, -1, 1], [1.0, 0.0, 0.0]),
        (GOOD_BOXES * float("nan"), [1.0, 0.0, 0.0]),
        (np.zeros((2, 5)), [1.0, 0.0, 0.0]),
    ],
)
def test_outputs_with_impossible_boxes_or_scores_are_unparsed_and_score_zero(read, value, boxes, probabilities):
    given = None if probabilities is None else np.asarray(probabilities)
    for name, metric in (("scanrefer", "acc@0.25"), ("multi3drefer", "f1@0.25")):
        index, benchmark, samples = read(name, ENTRIES[name])
        (sample,) = samples()
        answer = benchmark.parse(sample, ModelOutput(boxes=boxes, probabilities=given))
        assert answer == Answer(parsed=False)
        results = benchmark.score([sample], [answer], index)
        assert value(results, metric) == 0.0
        assert value(results, "unparsed") == 100.0


def test_unusable_output_is_not_right_where_nothing_is_the_answer(read, value):
    index, benchmark, samples = read("multi3drefer", MULTI | {"object_ids": [], "eval_type": "zt_w_d"})
    results = benchmark.score(samples(), [Answer(parsed=False)], index)
    assert value(results, "f1@0.25") == 0.0


@pytest.mark.parametrize(
    ("truth", "said", "right"),
    [
        ("\u6905\u5b50", "\u6905\u5b50", True),
        ("\u6905\u5b50", "\u684c\u5b50", False),  # the published cleaning makes both the empty text
        ("\u6905\u5b502", "\u684c\u5b502", False),
        ("\u0441\u0442\u0443\u043b", "\u0421\u0442\u0443\u043b.", True),  # case and full stop do not count
        ("\u092e\u0947\u091c", "\u092e\u091c", False),  # a vowel sign is part of the word
        ("cafe\u0301", "caf\u00e9", True),  # the same letter, written in two ways
        ("caf\u00e9", "caf", False),
        ("\U0001f44d", "\U0001f44e", False),
        ("\U0001f44d", "\U0001f44d", True),
        ("\u2764\ufe0f", "\u270c\ufe0f", False),  # an invisible mark is all that is left of either
        ("yes", "Yes \U0001f44d", True),
        ("...", "!!!", False),
        ("red", "", False),
        ("red", "\u202ered", True),
    ],
)
def test_answers_in_other_scripts_and_emoji(read, value, truth, said, right):
    question = SQA_ANSWER | {"answers": [{"answer": truth}]}
    files = {"q.json": {"questions": [SQA_QUESTION]}, "a.json": {"annotations": [question]}}
    index, benchmark, samples = read("sqa3d", files=files)
    (sample,) = samples()
    answer = benchmark.parse(sample, ModelOutput(raw_text=said))
    results = benchmark.score([sample], [answer], index)
    assert value(results, "em") == (100.0 if right else 0.0)
    assert value(results, "unparsed") == (100.0 if not said else 0.0)


def test_hostile_texts_are_scored_in_step(read):
    """Every hostile caption stands between two good ones, which keep their score."""
    hostile = [
        "||| eos sos",
        "\ud83d",
        "\u2028x\u2029",
        "\u6905\u5b50 \U0001f600",
        "sos sos eos eos",
        ". . .",
        "\x00",
        "x" * 3000,
    ]
    entries = [REFER | {"ann_id": "0", "object_id": str(i)} for i in range(2)]
    for text in hostile:
        index, benchmark, samples = read("scan2cap", *entries)
        two = samples()
        results = benchmark.score(two, [Answer(text=text), Answer(text="a chair")], index)
        single = {r.metric: r.per_sample for r in results}
        assert single["rougeL@0.5"][two[1].sample_id] == pytest.approx(100.0)
        assert single["rougeL@0.5"][two[0].sample_id] < 90.0
        assert np.isfinite([r.value for r in results]).all()


def test_every_fault_has_a_way_out(read, kind):
    """The messages of all kinds name the file and what to do or what is allowed."""
    key = SCENE_KEY.get(kind, "scene_id")
    for change in ({key: "room9"}, {key: "../x"}, {TEXT_KEY.get(kind, "question"): 3}):
        _, _, samples = read(kind, json.loads(json.dumps(ENTRIES[kind] | change)))
        with pytest.raises(PipelineError) as caught:
            samples()
        assert "fix" in str(caught.value)
        assert ".json" in str(caught.value)
