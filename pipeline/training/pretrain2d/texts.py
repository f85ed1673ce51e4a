"""The texts of a prepared dataset: what its tokenizer is trained on and the sentences of plain language. Split train only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.backbones._transformers.prompts import INSTRUCTION, user_text
from pipeline.backbones.base import COORD_TOKEN
from pipeline.benchmarks._annotations import LONGEST_TEXT
from pipeline.core.errors import AnnotationError, DataError
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Sample

VIEW_QA = "view_qa"
_SENTENCE_WORDS = 5
_MARKS = ("sos", "eos")


def read_json(path: Path) -> Any:
    """Read an annotation file. Raise DataError or AnnotationError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"annotation file {path} is missing", fix="run the rule `prepare` again with -f") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} is not valid JSON ({error})", fix="run the rule `prepare` again with -f") from None


def strings(content: Any, key: str = "") -> Iterator[str]:
    """Yield all texts in a JSON value, in order, without values of keys for names (ids, files, kinds, tokens)."""
    if isinstance(content, str):
        if key not in {"kind", "token", "tokens", "question_type"} and not key.endswith(("_id", "_ids", "file", "id")):
            yield content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from strings(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from strings(value, key)


def dataset_texts(index: SceneIndex) -> list[str]:
    """Return every text of the training annotations, in file order, without marks of tokenised captions."""
    found: list[str] = []
    for name in sorted(index.content["annotations"]):
        if "train" in index.content["annotations"][name]:
            for path in index.annotation_files(name, "train"):
                found += [_plain(text) for text in strings(read_json(path))]
    return found


def _plain(text: str) -> str:
    return " ".join(word for word in text.split() if word not in _MARKS)


def tokenizer_corpus(texts: list[str]) -> list[str]:
    """Return the dataset's texts in the forms of conversations: alone, capitalised, inside every prompt template."""
    unique = list(dict.fromkeys(texts))
    samples = [
        Sample("", "", "", "grounding", text="the one"),
        Sample("", "", "", "grounding", text="the one", any_number=True),
        Sample("", "", "", "caption"),
        Sample("", "", "", "qa", text="what?"),
        Sample("", "", "", "qa", text="what?", situation="i stand here."),
    ]
    # Templates count as often as the commonest words, so that their words become single tokens.
    templates = [user_text(sample).replace(COORD_TOKEN, "") for sample in samples]
    templates += [INSTRUCTION, "You are a helpful assistant.", "system\n", "user\n", "assistant\n"]
    return [*texts, *(text.capitalize() for text in unique), *(f" {text}" for text in unique), *templates * 200]


def sentences(texts: list[str]) -> list[str]:
    """Return distinct texts that are sentences (five words or more, at most a question's length), for plain language."""
    found = dict.fromkeys(texts)
    return [text for text in found if len(text.split()) >= _SENTENCE_WORDS and len(text.encode()) <= LONGEST_TEXT]
