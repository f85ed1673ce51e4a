"""What a model reads and is taught to say must not drift: every task's prompt and target, as fixed texts."""

from __future__ import annotations

import pytest

from pipeline.backbones._transformers.prompts import INSTRUCTION, target_text, user_text
from pipeline.scenes.types import Sample

BOX = (1.0, 2.0, 0.5, 0.4, 0.4, 1.0)
SAMPLES = {
    "scanrefer": Sample(
        "s|0|0", "s", "scanrefer", "grounding", text="This is a RED chair. It is next to the TV.", target_ids=(0,)
    ),
    "multi3drefer": Sample("s|0", "s", "multi3drefer", "grounding", text="the two lamps On the Desk", any_number=True),
    "scan2cap": Sample("s|0|chair", "s", "scan2cap", "caption", answer="A red chair by the TV.", input_box=BOX),
    "scanqa": Sample("q-0", "s", "scanqa", "qa", text="What color is the chair?", answer="red", references=("red",)),
    "sqa3d": Sample(
        "7",
        "s",
        "sqa3d",
        "qa",
        text="What is behind me?",
        situation="I am facing the door.",
        answer="table",
        references=("table",),
    ),
    "vsibench_number": Sample(
        "1",
        "s",
        "vsibench",
        "qa",
        text="How many chair(s) are in this room?",
        answer="3",
        references=("3",),
        numeric=True,
    ),
    "vsibench_choice": Sample(
        "2",
        "s",
        "vsibench",
        "qa",
        text="If I am standing by the desk and facing the sofa, is the lamp to the left or the right of the sofa?",
        answer="B",
        references=("B",),
        choices=("A. left", "B. right"),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_prompt(name, golden):
    sample = SAMPLES[name]
    parts = {"instruction": INSTRUCTION, "user": user_text(sample), "target": target_text(sample)}
    golden(f"prompts/{name}.txt", "".join(f"[{part}]\n{text}\n" for part, text in parts.items()))
