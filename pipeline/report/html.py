"""Pieces of the page as macros of Jinja: ``PIECES.table(...)``. Text is escaped unless it is ``Markup``."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")


def inline(text: str) -> Markup:
    """Return text with `code` and **bold** marks as HTML."""
    return Markup(_BOLD.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", str(escape(text)))))


ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
ENVIRONMENT.filters["inline"] = inline

PIECES: Any = ENVIRONMENT.from_string("""
{% macro paragraph(text, css="") %}<p{% if css %} class="{{ css }}"{% endif %}>{{ text | inline }}</p>{% endmacro %}
{% macro bullets(items) %}<ul>{% for item in items %}<li>{{ item | inline }}</li>{% endfor %}</ul>{% endmacro %}
{% macro row(cells, tag, left) %}
{% for cell in cells %}<{{ tag }}{% if loop.index0 >= left %} class=n{% endif %}>{{ cell }}</{{ tag }}>{% endfor %}
{% endmacro %}
{% macro table(header, body, left) %}
<div class="wide"><table><thead><tr>{{ row(header, "th", left) }}</tr></thead><tbody>
{%- for cells, first in body %}<tr{% if first %} class=first{% endif %}>{{ row(cells, "td", left) }}</tr>{% endfor %}
</tbody></table></div>
{%- endmacro %}
{% macro definitions(items) %}
<dl>{% for name, text in items %}<dt>{{ name }}</dt><dd>{{ text | inline }}</dd>{% endfor %}</dl>
{%- endmacro %}
{% macro picture(data, width, alt, caption) %}
<figure><img src="data:image/png;base64,{{ data }}" width="{{ width }}" alt="{{ alt }}">{#- -#}
<figcaption>{{ caption | inline }}</figcaption></figure>
{%- endmacro %}
""").module
