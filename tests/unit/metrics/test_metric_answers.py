"""Answer cleaning and matching."""

from __future__ import annotations

import pytest

from pipeline.metrics.answers import best_constant, clean_answer, comparable, leo_match, question_type, refined_match


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Brown  ", "brown"),
        ("dark   brown", "dark brown"),
        ("Yes.", "yes"),
        ("yes!?", "yes"),
        ("to my letf", "to my left"),
        ("let", "left"),
        ("brigth", "right"),
        ("rght", "right"),
        ("behine me", "behind me"),
        ("tehre", "there"),
        ("tv", "TV"),
        ("TV stand", "TV stand"),
        ("chai", "chair"),
        ("chairs", "chairs"),
        ("wasing machine", "washing machine"),
        ("waslked", "walked"),
        ("3 oclock", "three o'clock"),
        ("3 o' clock", "three o'clock"),
        ("0", "zero"),
        ("none", "zero"),
        ("12", "twelve"),
        ("20", "twenty"),
        ("21", "21"),
        ("23", "twenty-three"),
        ("120", "120"),
        ("2-3", "two-three"),
        ("mat2", "mat"),
        ("no1", "no"),
        ("room 12", "room twelve"),
        ("a chair", "chair"),
        ("an ottoman", "ottoman"),
        ("the chair", "chair"),
        ("next to the chair", "next to chair"),
        ("a", "a"),
        ("backwards", "backward"),
        ("left, behind: red-brown o'clock", "left, behind: red-brown o'clock"),
        ("", ""),
        ("...", ""),
    ],
)
def test_clean_answer(text, cleaned):
    assert clean_answer(text) == cleaned


def test_cleaning_is_case_and_article_blind():
    assert clean_answer("The A chair") == "chair"
    assert clean_answer(clean_answer("The 2 Chairs.")) == clean_answer("two chairs")


@pytest.mark.parametrize(
    ("prediction", "references", "matches"),
    [
        ("chair", ["chair"], True),
        ("arm chair", ["armchair"], True),
        ("chair", ["office chair"], True),
        ("office chair", ["chair"], True),
        ("table", ["chair", "table lamp"], True),  # also a later reference
        ("table", ["chair"], False),
        ("", ["chair"], False),
        (" ", ["chair"], False),
        ("chair", [""], False),
        ("chair", [], False),
    ],
)
def test_refined_match(prediction, references, matches):
    assert refined_match(prediction, references) is matches


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is this?", "what"),
        ("  IS it?", "is"),
        ("Whatever", "what"),
        ("Canopy?", "can"),
        ("Which one", "which"),
        ("How many", "how"),
        ("Are you", "others"),
        ("", "others"),
    ],
)
def test_question_type_is_by_prefix(question, kind):
    assert question_type(question) == kind


def test_best_constant_several_answers_ties_and_groups():
    references = [["red", "dark red"], ["red"], ["blue"], ["blue", "blue"], ["green"]]
    # red and blue are right twice each (a repeated answer counts once); the first in the alphabet is taken.
    assert best_constant(references) == [False, False, True, True, False]
    assert best_constant(references, ["a", "a", "b", "b", "c"]) == [True] * 5
    assert best_constant([]) == []


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "refined"),
    [
        ("chair", ["chair"], True, True),
        ("The Chair.", ["a chair"], True, True),
        ("chair", ["office chair", "chair"], False, True),  # the first that matches at all decides
        ("chair", ["table", "chair"], True, True),
        ("chair", ["table"], False, False),
        ("", ["chair"], False, True),  # the empty text is in every text
        ("\u6905\u5b50", ["\u684c\u5b50"], True, True),  # both are cleaned to nothing
        ("chair", [], False, False),
    ],
)
def test_leo_match_repeats_the_script(prediction, references, exact, refined):
    assert leo_match(prediction, references) == (exact, refined)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Yes.", "yes"),
        ("\u6905\u5b50!", "\u6905\u5b50"),
        ("\U0001f44d", "\U0001f44d"),
        ("...", "..."),
        ("yes \u2764\ufe0f", "yes"),
        ("Caf\u00e9", "caf\u00e9"),
        ("the 2 \u6905\u5b50", "two \u6905\u5b50"),
        ("", ""),
    ],
)
def test_comparable_keeps_other_scripts_and_never_loses_everything(text, kept):
    assert comparable(text) == kept


def test_cleaning_of_ascii_is_the_published_one():
    for text in ("Yes.", "a  TV_stand, 3 o' clock: (left)", "mat2 * none", "\tthe\tchair"):
        assert clean_answer(text) == clean_answer(text, ascii_only=True)
