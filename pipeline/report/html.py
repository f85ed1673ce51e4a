"""Small pieces of HTML. Every text from data goes through ``escape``."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")


def inline(text: str) -> str:
    """Plain text with `code` and **bold** marks as HTML."""
    return _BOLD.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", escape(text, quote=False)))


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of inline-marked text."""
    return f'<p class="{css}">{inline(text)}</p>' if css else f"<p>{inline(text)}</p>"


def bullets(items: Sequence[str]) -> str:
    """A list of inline-marked texts."""
    return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"


def table(header: Sequence[str], body: Sequence[tuple[Sequence[str], bool]], left: int) -> str:
    """A table of ready HTML cells; ``body``: (cells, starts a group); columns from ``left`` on are numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i >= left else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    lines = [f"<tr{' class=first' if starts else ''}>{row(cells, 'td')}</tr>" for cells, starts in body]
    return f'<div class="wide"><table><thead><tr>{row(header, "th")}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """A definition list of (name, plain text)."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{inline(text)}</dd>" for name, text in items) + "</dl>"


def picture(png: bytes, alt: str, caption: str) -> str:
    """A figure with its image inside the page. Width: images are drawn at 150 dpi and shown at 96."""
    width = int.from_bytes(png[16:20], "big") * 96 // 150
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" width="{width}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{inline(caption)}</figcaption></figure>"
