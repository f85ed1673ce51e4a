"""Chat formats of the families, their special tokens and templates. Light: no torch, no tokenizer.

All three families speak ChatML. What differs is the system turn and how a view is written:

    Qwen2.5-VL         system turn; every view  <|vision_start|> <|image_pad|> x N <|vision_end|>, then a line break
    LLaVA-OneVision    no system turn; all views <video> x (V N + 1), the last being the learned newline, then a line break
    InternVL           no system turn; every view <img> <IMG_CONTEXT> x N </img> and a line break

A conversation is cut after the instruction (prefix | question | answer). Cuts lie right after a line break or at a special
token and no part starts with white space, so tokenising the parts gives the ids of the whole (tests prove it).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.backbones._transformers.prompts import INSTRUCTION
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN

TURN_START, TURN_END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The way in which a family writes a conversation. ``visual`` is the placeholder token that visual tokens replace.

    ``opening``/``closing`` stand around the placeholders of one view (``per_view``) or of the whole video; ``trailing`` is
    the number of placeholders after the last view that are not visual tokens (LLaVA-OneVision's newline: 1).
    """

    visual: str
    opening: str
    closing: str
    per_view: bool
    system: str | None = None
    trailing: int = 0
    other_tokens: tuple[str, ...] = ()

    def special_tokens(self) -> list[str]:
        """Return all special tokens in vocabulary order; the alignment tokens come last."""
        own = [PAD, TURN_START, TURN_END, *self.other_tokens]
        return [*own, *(t for t in (self.visual,) if t not in own), GROUND_TOKEN, COORD_TOKEN]

    def prefix_text(self, views: int, tokens_per_view: int) -> str:
        """Return the conversation up to the question, with one placeholder per visual token."""
        head = f"{TURN_START}system\n{self.system}{TURN_END}\n" if self.system else ""
        if self.per_view:
            visual = f"{self.opening}{self.visual * tokens_per_view}{self.closing}" * views
        else:
            visual = f"{self.opening}{self.visual * (views * tokens_per_view + self.trailing)}{self.closing}"
        return f"{head}{TURN_START}user\n{visual}{self.after_views}{INSTRUCTION}\n"

    @property
    def after_views(self) -> str:
        """Return the line break before the instruction, where the views do not end with one."""
        return "" if self.closing.endswith("\n") else "\n"

    def question_text(self, user_text: str) -> str:
        """Return what follows the prefix: the user's text, end of turn, the assistant's header; outer blanks are dropped."""
        return f"{user_text.strip()}{TURN_END}\n{TURN_START}assistant\n"

    def answer_text(self, answer: str) -> str:
        """Return the assistant's text and its end of turn. Outer white space is dropped."""
        return f"{answer.strip()}{TURN_END}"

    def messages(self, views: int, user_text: str) -> list[dict[str, object]]:
        """Return the same conversation as messages for ``apply_chat_template`` (placeholders are then repeated per token)."""
        items: list[dict[str, str]] = [{"type": "image"}] * views if self.per_view else [{"type": "video"}]
        text = f"{self.after_views}{INSTRUCTION}\n{user_text.strip()}"
        return [{"role": "user", "content": [*items, {"type": "text", "text": text}]}]

    def template(self) -> str:
        """Return the Jinja chat template: one placeholder per image (or video) item, generation marks around
        assistant texts.
        """
        item = "image" if self.per_view else "video"
        visual = f"{self.opening}{self.visual}{self.closing}"
        end = f"{TURN_END}{{{{ '\\n' }}}}"
        system = ""
        if self.system:
            turn = f"{TURN_START}system\n{self.system}{TURN_END}\n"
            system = "{% if messages[0]['role'] != 'system' %}" + turn + "{% endif %}"
        said = "{% generation %}{{ message['content'] }}" + TURN_END + "{% endgeneration %}{{ '\\n' }}"
        items = (
            f"{{% for item in message['content'] %}}{{% if item['type'] == '{item}' %}}{visual}"
            "{% else %}{{ item['text'] }}{% endif %}{% endfor %}"
        )
        return (
            f"{system}{{% for message in messages %}}{TURN_START}{{{{ message['role'] }}}}\n"
            f"{{% if message['role'] == 'assistant' %}}{said}"
            f"{{% elif message['content'] is string %}}{{{{ message['content'] }}}}{end}"
            f"{{% else %}}{items}{end}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{TURN_START}assistant\n{{% endif %}}"
        )


QWEN2_5_VL = ChatFormat(
    visual="<|image_pad|>",
    opening="<|vision_start|>",
    closing="<|vision_end|>",
    per_view=True,
    system="You are a helpful assistant.",
    other_tokens=("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
LLAVA_ONEVISION = ChatFormat(
    visual="<video>", opening="", closing="\n", per_view=False, trailing=1, other_tokens=("<image>", "<video>")
)
INTERNVL = ChatFormat(
    visual="<IMG_CONTEXT>",
    opening="<img>",
    closing="</img>\n",
    per_view=True,
    other_tokens=("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
)
