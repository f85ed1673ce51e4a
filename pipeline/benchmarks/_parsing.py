"""Parsing that benchmarks with generated text share."""

from __future__ import annotations

from pipeline.scenes.types import Answer, ModelOutput


def parse_text(output: ModelOutput) -> Answer:
    """Strip surrounding white space from generated text; text that is empty or no string is unparsed."""
    text = output.raw_text.strip() if isinstance(output.raw_text, str) else ""
    return Answer(text=text, parsed=bool(text))
