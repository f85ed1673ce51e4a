"""What the annotations say is true of the rooms, checked from the text and the boxes alone; answers are balanced."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from pipeline.datasets._film.catalog import CATEGORIES, COLOURS, NUMBERS, coloured, coloured_plural
from pipeline.datasets._language.annotate import annotate
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets.base import contents
from pipeline.datasets.rooms import RoomsOptions
from pipeline.metrics.answers import question_type

Rooms = dict[str, RoomFacts]
Files = dict[str, Any]


def door_distance(room: RoomFacts, thing: Thing) -> float:
    door = next(m for m in room.landmarks if m.kind == "door")
    return float(np.hypot(*(thing.centre[:2] - np.array(door.centre))))


# ------------------------------------------------------------------ ScanRefer


def test_scanrefer_names_its_object(many_rooms: Rooms, files: Files) -> None:
    entries = files["ScanRefer_filtered_train.json"]
    assert len(entries) > 60 * 10
    keys = [(e["scene_id"], e["object_id"], e["ann_id"]) for e in entries]
    assert len(set(keys)) == len(keys)
    for e in entries:
        thing = many_rooms[e["scene_id"]].things[int(e["object_id"])]
        assert isinstance(e["object_id"], str)
        assert isinstance(e["ann_id"], str)
        assert e["object_name"] == thing.category
        assert thing.category in e["description"]
        assert thing.colour in e["description"]
        assert e["token"] == re.findall(r"\w+|[.,]", e["description"])


def test_scanrefer_describes_each_object_three_times(files: Files) -> None:
    per_object = Counter((e["scene_id"], e["object_id"]) for e in files["ScanRefer_filtered_train.json"])
    assert set(per_object.values()) == {3}
    texts = defaultdict(set)
    for e in files["ScanRefer_filtered_train.json"]:
        texts[e["scene_id"], e["object_id"]].add(e["description"])
    assert np.mean([len(t) for t in texts.values()]) > 2.9


def test_scanrefer_has_unique_and_multiple(many_rooms: Rooms, files: Files) -> None:
    kinds = Counter(
        many_rooms[scene].counts[name] == 1
        for scene, _, name in {
            (e["scene_id"], e["object_id"], e["object_name"]) for e in files["ScanRefer_filtered_train.json"]
        }
    )
    assert 0.3 < kinds[True] / sum(kinds.values()) < 0.7


def test_scanrefer_tells_objects_apart(many_rooms: Rooms, files: Files) -> None:
    """A description without any relation is given only where colour and category are enough; ranks are right."""
    ranked = plain = 0
    for e in files["ScanRefer_filtered_train.json"]:
        room, text = many_rooms[e["scene_id"]], e["description"]
        thing = room.things[int(e["object_id"])]
        same = room.of(thing.category)
        if re.fullmatch(rf"(this is |it is |you can see |look for |there is )?(an?|the) {thing.named}( in the room)?\.", text):
            plain += 1
            assert len([t for t in same if t.colour == thing.colour]) == 1, text
        for word, sign in (("closest to", 1), ("farthest from", -1)):
            if f"{word} the door" in text:
                ranked += 1
                assert thing is min(same, key=lambda t: sign * door_distance(room, t)), text
                assert len(same) > 1
        support = re.search(r"\bon the ([a-z ]+?)\.", text)
        if support and support[1].split()[-1] in CATEGORIES:
            assert thing.on is not None
            assert room.things[thing.on].category == support[1].split()[-1]
    assert ranked > 20
    assert plain > 10


# --------------------------------------------------------------- Multi3DRefer


def test_multi3drefer_types_fit_their_targets(many_rooms: Rooms, files: Files) -> None:
    entries = files["multi3drefer_train.json"]
    kinds = Counter(e["eval_type"] for e in entries)
    assert set(kinds) == {"zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"}
    assert min(kinds.values()) / len(entries) > 0.07
    for e in entries:
        room, ids = many_rooms[e["scene_id"]], e["object_ids"]
        present = room.counts[e["object_name"]]
        assert all(room.things[i].category == e["object_name"] for i in ids)
        expected = "mt" if len(ids) > 1 else f"{'st' if ids else 'zt'}_{'w' if present > len(ids) else 'wo'}_d"
        assert e["eval_type"] == expected, e
    assert len({(e["scene_id"], e["ann_id"]) for e in entries}) == len(entries)


def test_multi3drefer_plain_descriptions_mean_exactly_their_targets(many_rooms: Rooms, files: Files) -> None:
    nouns: dict[str, tuple[str, str | None]] = {}
    for category, c in CATEGORIES.items():
        nouns |= {category: (category, None), c.plural: (category, None)}
        for colour in COLOURS:
            nouns |= dict.fromkeys((coloured(colour, category), coloured_plural(colour, category)), (category, colour))
    checked = 0
    for e in files["multi3drefer_train.json"]:
        core = re.sub(
            r"^(find )?(the|all|any|an?|this is an?|this is the|there is an?) ", "", e["description"].removesuffix(".")
        )
        if core in nouns:
            checked += 1
            things = many_rooms[e["scene_id"]].of(*nouns[core])
            assert sorted(t.object_id for t in things) == e["object_ids"], e
    assert checked > 60


def test_number_of_the_noun_gives_little_away(files: Files) -> None:
    """Plural nouns occur with no and one target too."""
    plurals = tuple(f"{c.plural} " for c in CATEGORIES.values()) + tuple(f"{c.plural}." for c in CATEGORIES.values())
    shares = defaultdict(list)
    for e in files["multi3drefer_train.json"]:
        shares[e["eval_type"][:2]].append(any(p in e["description"] for p in plurals))
    assert np.mean(shares["zt"]) > 0.15
    assert np.mean(shares["st"]) > 0.05


# --------------------------------------------------------------------- ScanQA


def test_scanqa_counts_colours_and_presence(many_rooms: Rooms, files: Files) -> None:
    checked: Counter[str] = Counter()
    plurals = {c.plural: c.name for c in CATEGORIES.values()}
    for e in files["ScanQA_v1.0_train.json"]:
        room, question, answers = many_rooms[e["scene_id"]], e["question"], e["answers"]
        assert answers
        assert len(set(answers)) == len(answers)
        assert e["object_names"] == [room.things[i].category for i in e["object_ids"]]
        number = re.fullmatch(r"How many (\w+ )?(\w+) are (there|in the room)\?", question)
        if number and number[2] in plurals:
            checked["number"] += 1
            things = room.of(plurals[number[2]], number[1].strip() if number[1] else None)
            assert answers == [NUMBERS[len(things)]], question
        there = re.fullmatch(r"Is there an? (\w+ )?(\w+) in the room\?", question)
        if there:
            checked["there"] += 1
            assert answers == ["yes" if room.of(there[2], there[1].strip() if there[1] else None) else "no"], question
        colour = re.fullmatch(r"What (?:is the color of|color is) the (\w+)\?", question)
        if colour:
            checked["colour"] += 1
            assert [t.colour for t in room.of(colour[1])] == answers, question
        where = re.fullmatch(r"What is (?:standing )?on the (\w+)\?", question)
        if where:
            checked["on"] += 1
            host = room.of(where[1])[0]
            assert [t.category for t in room.things if t.on == host.object_id] == answers[:1]
        closer = re.fullmatch(r"Which is closer to the door, the ([\w ]+) or the ([\w ]+)\?", question)
        if closer and "pot" not in question:
            checked["closer"] += 1
            pair = [next(t for t in room.things if text in (t.category, t.named)) for text in closer.groups()]
            assert answers[0] == min(pair, key=lambda t: door_distance(room, t)).category, question
    assert min(checked.values()) >= 5
    assert len(checked) == 5


def test_scanqa_gives_several_answers_where_natural(files: Files) -> None:
    several = [len(e["answers"]) > 1 for e in files["ScanQA_v1.0_train.json"]]
    assert 0.25 < np.mean(several) < 0.8


# ---------------------------------------------------------------------- SQA3D


def sqa(files: Files) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    questions = files["v1_balanced_questions_train_scannetv2.json"]["questions"]
    annotations = files["v1_balanced_sqa_annotations_train_scannetv2.json"]["annotations"]
    assert [q["question_id"] for q in questions] == [a["question_id"] for a in annotations]
    assert len({q["question_id"] for q in questions}) == len(questions)
    return [(q, a, a["answers"][0]["answer"]) for q, a in zip(questions, annotations, strict=True)]


def test_sqa3d_directions_follow_position_and_rotation(many_rooms: Rooms, files: Files) -> None:
    """Identity looks along +y; left is counter-clockwise: recomputed here from the written quaternion."""
    checked = 0
    for q, a, answer in sqa(files):
        room = many_rooms[q["scene_id"]]
        turn = 2 * np.arctan2(a["rotation"]["_z"], a["rotation"]["_w"])
        ahead = np.array([-np.sin(turn), np.cos(turn)])
        left = np.array([-ahead[1], ahead[0]])
        here = np.array([a["position"]["x"], a["position"]["y"]])
        asked = re.search(
            r"^(?:Is|Which way is|Which direction is|Can I see|How should I turn to face) the ((?:\w+ )?\w+?)"
            r" ?(on my left|on my right|behind me|in front of me|from me|without turning)?(?: or .*)?\?$",
            q["question"],
        )
        if not asked:
            continue
        name = asked[1].removesuffix(" on my")
        thing = next((t for t in room.things if name in (t.category, t.named)), None)
        if thing is None:
            continue
        checked += 1
        away = thing.centre[:2] - here
        along, aside = float(away @ ahead), float(away @ left)
        truth = ("left" if aside > 0 else "right") if abs(aside) > abs(along) else ("in front" if along > 0 else "behind")
        if answer in ("yes", "no"):
            claim = {"on my left": "left", "on my right": "right", "behind me": "behind", "in front of me": "in front"}
            claimed = claim.get(asked[2] or "", "in front")
            assert (answer == "yes") == (truth == claimed), q
        else:
            assert answer == {"behind": "around"}.get(truth, truth) if "turn" in q["question"] else answer == truth, q
    assert checked > 60


def test_sqa3d_positions_are_on_free_floor_of_the_room(many_rooms: Rooms, files: Files) -> None:
    for q, a, _ in sqa(files):
        x0, y0, x1, y1 = many_rooms[q["scene_id"]].bounds
        assert x0 < a["position"]["x"] < x1
        assert y0 < a["position"]["y"] < y1
        assert a["rotation"]["_z"] ** 2 + a["rotation"]["_w"] ** 2 == pytest.approx(1.0, abs=1e-5)
        assert a["rotation"]["_x"] == a["rotation"]["_y"] == 0
        assert q["alternative_situation"]


def test_sqa3d_has_all_question_types(files: Files) -> None:
    kinds = Counter(question_type(q["question"]) for q, _, _ in sqa(files))
    total = sum(kinds.values())
    assert set(kinds) == {"what", "is", "how", "can", "which", "others"}
    assert min(kinds.values()) / total > 0.06
    assert kinds["what"] / total < 0.45


# -------------------------------------------------------------------- balance


def best_constant(answers: list[list[str]]) -> float:
    return max(Counter(a for one in answers for a in set(one)).values()) / len(answers)


def test_a_constant_answer_scores_badly(files: Files) -> None:
    scanqa = [e["answers"] for e in files["ScanQA_v1.0_train.json"]]
    situated = [[answer] for _, _, answer in sqa(files)]
    assert best_constant(scanqa) < 0.15
    assert best_constant(situated) < 0.15


def test_a_constant_answer_per_type_scores_badly(files: Files) -> None:
    groups: dict[str, list[list[str]]] = defaultdict(list)
    for e in files["ScanQA_v1.0_train.json"]:
        groups["qa " + e["question"].split()[0]].append(e["answers"])
    for q, _, answer in sqa(files):
        groups["sqa " + question_type(q["question"])].append([answer])
    for kind, answers in groups.items():
        if len(answers) > 20:
            assert best_constant(answers) < 0.45, kind


# --------------------------------------------------------------------- view QA


def test_view_questions_are_about_one_view(many_rooms: Rooms, files: Files) -> None:
    entries = files["view_qa_train.json"]
    assert {e["kind"] for e in entries} == {"color", "category", "exists", "count", "caption"}
    assert len(entries) / (60 * 5) > 3.5
    for e in entries:
        room = many_rooms[e["scene_id"]]
        shares = room.visible[room.frame_ids.index(e["frame_id"])]
        visible = [t for t in room.things if shares.get(t.object_id, 0) >= 0.01]
        hinted = [t for t in room.things if shares.get(t.object_id, 0) >= 0.0008]
        words = re.findall(r"\w+", e["question"].lower())
        category = next((c.name for c in CATEGORIES.values() if c.name in words or c.plural in words), None)
        if e["kind"] == "color":
            assert [t.colour for t in hinted if t.category == category] == e["answers"]
        elif e["kind"] == "category":
            colour = next(c for c in COLOURS if c in words)
            assert [t.category for t in hinted if t.colour == colour] == e["answers"]
        elif e["kind"] == "exists":
            assert e["answers"] == ["yes" if any(t.category == category for t in hinted) else "no"]
        elif e["kind"] == "count":
            assert e["answers"] == [NUMBERS[sum(t.category == category for t in visible)]]
        else:
            assert max(visible, key=lambda t: shares[t.object_id]).category in e["answers"][0]


# ------------------------------------------------------------------- the whole


def test_annotations_are_a_function_of_rooms_and_options(many_rooms: Rooms, files: Files) -> None:
    again = contents(annotate([("train", room) for room in many_rooms.values()], RoomsOptions()))
    assert json.dumps(again) == json.dumps(files)
    other = contents(annotate([("train", room) for room in many_rooms.values()], RoomsOptions(seed=1)))
    assert json.dumps(other) != json.dumps(files)


def test_few_words_are_needed(files: Files) -> None:
    """A small tokenizer covers the language."""
    words = set(re.findall(r"[a-z]+", json.dumps(files).lower()))
    assert len(words) < 400


def test_grammar(files: Files) -> None:
    text = json.dumps(files)
    assert not re.search(r"\ba (orange|ottoman)\b", text)
    assert not re.search(r"\ban [b-df-hj-np-tv-z]", text)
    assert "  " not in text
    assert "that is that" not in text
