"""The options of a dataset kind as its page lists them (`python tests/doc_options.py KIND` prints the list)."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from pipeline.core import registry
from pipeline.core.options import Options

COLUMNS = 125


def option_items(model: type[Options], prefix: str = "") -> Iterator[str]:
    """One line per option: name, default, other values, description. A nested model's options follow as ``frames.count``."""
    for name, field in model.model_fields.items():
        nested, text = field.annotation, str(field.description).replace("<", "\\<")
        if isinstance(nested, type) and issubclass(nested, Options):
            yield f"- `{prefix}{name}`: {text}"
            yield from option_items(nested, f"{prefix}{name}.")
            continue
        default = "needed" if field.default is PydanticUndefined else f"`{json.dumps(field.default)}`"
        others = [f"`{value}`" for value in get_args(nested) if value != field.default] if get_origin(nested) is Literal else []
        yield f"- `{prefix}{name}` ({', '.join([default, *others])}): {text}"


def option_list(kind: str) -> str:
    """The list of a dataset kind, wrapped."""
    items = option_items(registry.member_class("datasets", kind).options_model)
    return "\n".join(
        textwrap.fill(item, COLUMNS, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) for item in items
    )


if __name__ == "__main__":
    print(option_list(sys.argv[1]))
