"""Chat formats and the offline tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.backbones._transformers.chat import INTERNVL, LLAVA_ONEVISION, QWEN2_5_VL, ChatFormat
from pipeline.backbones._transformers.prompts import INSTRUCTION
from pipeline.backbones._transformers.tokenizer import add_alignment_tokens, load_tokenizer, token_id, train_tokenizer
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.core.errors import CheckpointError
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.texts import dataset_texts, sentences, strings, tokenizer_corpus

CORPUS = ["the brown chair is left of the white table .", "What color is the sofa?", INSTRUCTION] * 5
FORMATS = [QWEN2_5_VL, LLAVA_ONEVISION, INTERNVL]


@pytest.mark.parametrize("chat", FORMATS, ids=["qwen", "llava", "internvl"])
def test_every_text_round_trips_also_after_saving(chat: ChatFormat, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, chat, vocabulary=400)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    for text in ["the chair", "naïve 椅子 \U0001fa91", "a\n\n b\t", "".join(map(chr, range(0x20, 0x250))), "\x00\x7f"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert again(text, add_special_tokens=False)["input_ids"] == ids
        assert again.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("chat", FORMATS, ids=["qwen", "llava", "internvl"])
def test_special_tokens_are_single_and_words_too(chat: ChatFormat) -> None:
    tokenizer = train_tokenizer(CORPUS, chat, vocabulary=600)
    for token in chat.special_tokens():
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [token_id(tokenizer, token)]
    for word in (" chair", " table", "What"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
    assert len(tokenizer) <= 600
    assert tokenizer.eos_token == "<|im_end|>"


def test_training_is_deterministic() -> None:
    one, two = (train_tokenizer(CORPUS, QWEN2_5_VL, vocabulary=400).get_vocab() for _ in range(2))
    assert one == two


@pytest.mark.parametrize("chat", FORMATS, ids=["qwen", "llava", "internvl"])
def test_generation_marks_cover_exactly_the_answers(chat: ChatFormat) -> None:
    tokenizer = train_tokenizer(CORPUS, chat, vocabulary=400)
    messages = [*chat.messages(1, "What color is the sofa?"), {"role": "assistant", "content": "brown"}]
    found = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(found["input_ids"], found["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "brown<|im_end|>"


def test_formats_are_the_families_own() -> None:
    assert QWEN2_5_VL.prefix_text(2, 1) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>\n" + INSTRUCTION + "\n"
    )
    assert LLAVA_ONEVISION.prefix_text(2, 1) == "<|im_start|>user\n<video><video><video>\n" + INSTRUCTION + "\n"
    assert INTERNVL.prefix_text(2, 2) == (
        "<|im_start|>user\n" + "<img><IMG_CONTEXT><IMG_CONTEXT></img>\n" * 2 + INSTRUCTION + "\n"
    )
    assert QWEN2_5_VL.question_text(" What? ") == "What?<|im_end|>\n<|im_start|>assistant\n"
    assert QWEN2_5_VL.answer_text("red") == "red<|im_end|>"


def test_alignment_tokens_are_added_where_missing() -> None:
    tokenizer = train_tokenizer(CORPUS, QWEN2_5_VL, vocabulary=400)
    assert add_alignment_tokens(tokenizer) == 0
    assert tokenizer.convert_tokens_to_ids(GROUND_TOKEN) != tokenizer.convert_tokens_to_ids(COORD_TOKEN)
    with pytest.raises(CheckpointError, match="<nope>"):
        token_id(tokenizer, "<nope>")


def test_a_folder_without_tokenizer_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_texts_of_a_dataset(shapes: SceneIndex) -> None:
    texts = dataset_texts(shapes)
    assert "What color is it?" in texts
    assert not any(text.startswith("shape0") for text in texts), "ids are no language"
    assert sentences(texts)
    assert all(len(t.split()) >= 5 for t in sentences(texts))
    assert len(tokenizer_corpus(texts)) > len(texts)
    assert list(strings({"object_id": "3", "kind": "k", "answers": ["red"], "nested": [{"description": "a b"}]})) == [
        "red",
        "a b",
    ]
