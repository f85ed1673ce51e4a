"""ONE prompt builder for training and evaluation. Templates: those of the 3DRS training data;
VSI-Bench: the official evaluation (github.com/vision-x-nyu/thinking-in-space, lmms_eval/tasks/vsibench).

The reference tests with a shorter prompt than it trains with; here both call ``user_text``. The images and
``INSTRUCTION`` stand in the shared prefix (backbones/*.py), the text of one question follows it.
"""

from __future__ import annotations

from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.scenes.types import Sample

INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video "
    "and answer the following questions."
)
_MULTIPLE = "There may be no corresponding object, or there may be one or more objects."
_FRAMES = "These are frames of a video."
_LETTER = "Answer with the option's letter from the given choices directly."
_SHORT = "Please answer the question using a single word or phrase."


def user_text(sample: Sample) -> str:
    """Return the user's text of a sample, after images and instruction.

    Grounding descriptions are capitalised as ``str.capitalize`` does (first letter upper, rest lower).
    """
    if sample.task == "grounding":
        text = f"Identify the object according to the following description.\n{sample.text.capitalize()}"
        return f"{text}\n{_MULTIPLE}" if sample.any_number else text
    if sample.task == "caption":
        return f"Given an object located at {COORD_TOKEN} , describe the object in detail."
    if sample.choices:
        return "\n".join((_FRAMES, sample.text, "Options:", *sample.choices, _LETTER))
    if sample.numeric:
        return "\n".join((_FRAMES, sample.text, _SHORT))
    if sample.situation:
        return f"{sample.situation} {sample.text} Answer the question using a single word or phrase."
    return f"{sample.text} Answer the question simply."


def target_text(sample: Sample) -> str:
    """Return the assistant's text: ``<ground>`` for grounding (its hidden state is the query), else the answer."""
    return GROUND_TOKEN if sample.task == "grounding" else sample.answer
