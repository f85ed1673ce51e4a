"""ScanQA and SQA3D: reading of official files, training expansion, exact match and its levels."""

from __future__ import annotations

import copy

import pytest

from pipeline.core.errors import AnnotationError
from pipeline.scenes.types import Answer, ModelOutput


def scanqa_entry(number, answers, question="What color is the chair?", scene="room0", object_ids=(0,)):
    return {
        "question_id": f"val-{scene}-{number}",
        "scene_id": scene,
        "question": question,
        "answers": answers,
        "object_ids": list(object_ids),
        "object_names": ["chair"],
    }


def scanqa_file(*entries, split="test"):
    return {"scanqa": {split: {f"ScanQA_v1.0_{split}.json": list(entries)}}}


def sqa_files(rows, split="test"):
    """Rows: (question id, question, answer, alternatives)."""
    questions = [
        {
            "scene_id": "room0",
            "situation": f"I stand here {i}.",
            "alternative_situation": list(alternatives),
            "question": question,
            "question_id": i,
        }
        for i, question, _, alternatives in rows
    ]
    annotations = [
        {
            "scene_id": "room0",
            "question_type": "N/A",
            "answer_type": "other",
            "question_id": i,
            "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
            "rotation": {"_x": 0, "_y": 0, "_z": 0, "_w": 1},
            "position": {"x": 0, "y": 0, "z": 0},
        }
        for i, _, answer, _ in rows
    ]
    return {
        f"v1_balanced_questions_{split}_scannetv2.json": {"questions": questions},
        f"v1_balanced_sqa_annotations_{split}_scannetv2.json": {"annotations": annotations},
    }


ROWS = [
    (7, "What is left of me?", "chair", ["a", "b"]),
    (8, "Is the door open?", "yes", []),
    (9, "Am I near the bed?", "yes", ["c"]),
    (10, "What is behind me?", "lamp", []),
]


def test_scanqa_samples_and_training_expansion(make_index, member, record):
    entries = [scanqa_entry(0, ["red", "dark red"]), scanqa_entry(1, ["two"], "How many lamps?", object_ids=())]
    index = make_index([record("room0", ["chair"])], scanqa_file(*entries) | {})
    scanqa = member("scanqa")
    samples = scanqa.samples(index, "test")
    assert [s.sample_id for s in samples] == ["val-room0-0", "val-room0-1"]
    assert samples[0].references == ("red", "dark red")
    assert samples[0].situation == ""
    train = make_index([record("room0", ["chair"], split="train")], scanqa_file(*entries, split="train"))
    expanded = scanqa.training_samples(train)
    assert [(s.sample_id, s.answer) for s in expanded] == [
        ("val-room0-0|0", "red"),
        ("val-room0-0|1", "dark red"),
        ("val-room0-1|0", "two"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": []}, "'answers' is empty"),
        ({"answers": "red"}, "list of strings"),
        ({"answers": ["red", " "]}, "list of strings"),
    ],
)
def test_scanqa_faults(make_index, member, record, change, message):
    index = make_index([record("room0", ["chair"])], scanqa_file(scanqa_entry(0, ["red"]) | change))
    with pytest.raises(AnnotationError, match=message):
        member("scanqa").samples(index, "test")


def test_scanqa_exact_match_is_raw_and_refined_is_cleaned(make_index, member, record, value):
    index = make_index(
        [record("room0", ["chair"])],
        scanqa_file(
            scanqa_entry(0, ["red", "dark red"]),
            scanqa_entry(1, ["2", "red"], "How many?"),
            scanqa_entry(2, ["by the door"], "Where is it?"),
            scanqa_entry(3, ["blue"]),
        ),
    )
    scanqa = member("scanqa", meteor=False)
    samples = scanqa.samples(index, "test")
    answers = [Answer(text="dark red"), Answer(text="Two."), Answer(text="door"), Answer(parsed=False)]
    results = scanqa.score(samples, answers, index)
    assert value(results, "em") == 25.0
    assert value(results, "em_refined") == 75.0
    assert value(results, "unparsed") == 25.0
    assert value(results, "em", reference="best_constant") == 50.0  # "red" is right twice
    assert value(results, "em", reference="type_majority") == 75.0  # what: 1 of 2 (blue or red), how: 1, where: 1
    assert value(results, "bleu1") > 0
    metrics = [r.metric for r in results if not r.reference and r.subset == "all"]
    assert metrics == [
        "em",
        "em_cleaned",
        "em_cleaned_raw",
        "em_refined",
        "em_leo",
        "em_refined_leo",
        "cider",
        "bleu1",
        "bleu2",
        "bleu3",
        "bleu4",
        "rougeL",
        "unparsed",
    ]


def test_scanqa_text_metrics_drop_final_stops(make_index, member, record, value):
    index = make_index([record("room0", ["chair"])], scanqa_file(scanqa_entry(0, ["on the left"]), scanqa_entry(1, ["blue"])))
    scanqa = member("scanqa", meteor=False)
    samples = scanqa.samples(index, "test")
    results = scanqa.score(samples, [Answer(text="on the left."), Answer(text="blue")], index)
    assert value(results, "rougeL") == pytest.approx(100.0)
    assert value(results, "em") == 50.0


def test_sqa3d_samples_and_types(make_index, member, record):
    index = make_index([record("room0", ["chair"])], {"sqa3d": {"test": sqa_files(ROWS)}})
    samples = member("sqa3d").samples(index, "test")
    assert [s.sample_id for s in samples] == ["7", "8", "9", "10"]
    assert [s.subsets for s in samples] == [("what",), ("is",), ("others",), ("what",)]
    assert samples[0].situation == "I stand here 7."
    assert samples[0].metadata["rotation"]["_w"] == 1


def test_sqa3d_training_has_one_sample_per_situation(make_index, member, record):
    index = make_index([record("room0", ["chair"], split="train")], {"sqa3d": {"train": sqa_files(ROWS, "train")}})
    samples = member("sqa3d").training_samples(index)
    assert [s.sample_id for s in samples] == ["7|0", "7|1", "7|2", "8|0", "9|0", "9|1", "10|0"]
    assert [s.situation for s in samples[:3]] == ["I stand here 7.", "a", "b"]
    assert {s.answer for s in samples[:3]} == {"chair"}


def test_sqa3d_faults(make_index, member, record):
    good = sqa_files(ROWS)
    questions, annotations = list(good)

    def refused(files, message):
        index = make_index([record("room0", ["chair"])], {"sqa3d": {"test": files}})
        with pytest.raises(AnnotationError, match=message):
            member("sqa3d").samples(index, "test")

    refused({questions: good[questions]}, "needs a questions file and an annotations file")
    refused({questions: [], annotations: good[annotations]}, "neither 'questions' nor 'annotations'")
    for change, message in (
        (lambda f: f[annotations]["annotations"].pop(), "question 10 has no annotation"),
        (lambda f: f[questions]["questions"].pop(), "1 annotations have no question"),
        (lambda f: f[annotations]["annotations"][1].update(question_id=7), "7 comes twice"),
        (lambda f: f[questions]["questions"].append(f[questions]["questions"][0]), "'7' comes twice"),
        (lambda f: f[annotations]["annotations"][0].update(answers=[]), "'answers' is"),
        (lambda f: f[annotations]["annotations"][0].update(scene_id="room9"), "its question is about scene room0"),
        (lambda f: f[questions]["questions"][0].update(situation=""), "not blank"),
    ):
        files = copy.deepcopy(good)
        change(files)
        refused(files, message)


def test_sqa3d_scores_by_hand(make_index, member, record, value):
    index = make_index([record("room0", ["chair"])], {"sqa3d": {"test": sqa_files(ROWS)}})
    sqa3d = member("sqa3d")
    samples = sqa3d.samples(index, "test")
    answers = [Answer(text="The Chair."), Answer(text="yes it is"), Answer(parsed=False), Answer(text="lamp")]
    results = sqa3d.score(samples, answers, index)
    assert value(results, "em") == 50.0
    assert value(results, "em", "what") == 100.0
    assert value(results, "em", "others") == 0.0
    assert value(results, "em_refined") == 75.0
    assert value(results, "em_refined", "others") == 0.0  # the empty answer matches nothing
    assert value(results, "em", reference="best_constant") == 50.0
    assert value(results, "em", reference="type_majority") == 75.0
    assert value(results, "em", "what", "type_majority") == 50.0


def test_parse_text(make_index, member, record):
    index = make_index([record("room0", ["chair"])], {"sqa3d": {"test": sqa_files(ROWS)}})
    sample = member("sqa3d").samples(index, "test")[0]
    for kind in ("scanqa", "sqa3d"):
        parse = member(kind).parse
        assert parse(sample, ModelOutput(raw_text="  chair\n")) == Answer(text="chair")
        for nothing in ("", " \n\t", None, 3):
            assert parse(sample, ModelOutput(raw_text=nothing)) == Answer(parsed=False)


def test_four_published_forms_of_scanqas_exact_match(make_index, member, record, value):
    """Raw (3DRS), LEO, cleaned against cleaned (VLM-3R), cleaned against raw (Chat-Scene, GPT4Scene)."""
    entries = [
        scanqa_entry(0, ["the red chair"]),  # an article
        scanqa_entry(1, ["2", "two"]),  # a number, and its word
        scanqa_entry(2, ["on the Left"]),  # a capital
        scanqa_entry(3, ["blue chair", "blue"]),  # the first answer contains the prediction: LEO stops there
    ]
    index = make_index([record("room0", ["chair"])], scanqa_file(*entries))
    scanqa = member("scanqa", meteor=False)
    said = [Answer(text=text) for text in ("The red chair.", "2.", "On left", "blue")]
    results = scanqa.score(scanqa.samples(index, "test"), said, index)
    assert value(results, "em") == 25.0  # blue
    assert value(results, "em_cleaned") == 100.0
    assert value(results, "em_cleaned_raw") == 50.0  # two, blue: "red chair" is no answer as it stands
    assert value(results, "em_leo") == 50.0 + 25.0


def hidden_entry(number, scene="room0"):
    """As in test_w_obj and test_wo_obj: a question and nothing else."""
    return {"scene_id": scene, "question_id": f"test-{scene}-{number}", "question": "What color is the chair?"}


def hidden_files():
    return {
        "scanqa": {
            "test": {
                "ScanQA_v1.0_test_w_obj.json": [hidden_entry(0), hidden_entry(1)],
                "ScanQA_v1.0_test_wo_obj.json": [hidden_entry(2)],
            }
        }
    }


def test_scanqas_hidden_questions_are_asked_and_there_is_nothing_to_score(make_index, member, record):
    index = make_index([record("room0", [])], hidden_files())
    scanqa = member("scanqa")
    samples = scanqa.samples(index, "test")
    assert [s.sample_id for s in samples] == ["test-room0-0", "test-room0-1", "test-room0-2"]
    assert {(s.references, s.target_ids, s.answer) for s in samples} == {((), (), "")}
    results = scanqa.score(samples, [Answer(text="red")] * 3, index)
    assert {r.metric for r in results} == {"unparsed"}


def test_answers_that_lack_here_and_there_are_a_fault(make_index, member, record):
    index = make_index([record("room0", ["chair"])], scanqa_file(scanqa_entry(0, ["red"]), hidden_entry(1)))
    with pytest.raises(AnnotationError, match="key 'answers' is missing"):
        member("scanqa").samples(index, "test")
    train = make_index([record("room0", [], split="train")], scanqa_file(hidden_entry(0), split="train"))
    with pytest.raises(AnnotationError, match="key 'answers' is missing"):
        member("scanqa").training_samples(train)
