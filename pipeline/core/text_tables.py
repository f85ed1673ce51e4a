"""Tables as text: Markdown that also reads as plain text, cut to the width of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def render_table(header: Sequence[str], body: Sequence[Sequence[str]], left: int = 2) -> list[str]:
    """A Markdown table padded so that it also reads as plain text; the first ``left`` columns are left-aligned."""
    widths = [max(3, *(len(row[i]) for row in [header, *body])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i < left else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return [line(header), line(rule), *(line(row) for row in body)]


def fit_width(text: str, width: int) -> str:
    """The same text for a terminal of ``width`` columns: wide tables are cut into column groups, prose is wrapped."""
    lines: list[str] = []
    table: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
            continue
        lines += _fit_table(table, width)
        table = []
        lines += textwrap.wrap(line, max(40, width), subsequent_indent="  " if line.startswith("- ") else "") or [""]
    return "\n".join(lines).rstrip() + "\n"


def _fit_table(table: Sequence[str], width: int) -> list[str]:
    if not table or max(map(len, table)) <= width:
        return list(table)
    cells = [list(line.strip("|").split("|")) for line in table]
    fixed = 2 if cells[1][1].strip().endswith("-") else 1
    sizes = [len(cell) + 1 for cell in cells[1]]
    groups: list[list[int]] = [[]]
    for column in range(fixed, len(sizes)):
        if groups[-1] and 1 + sum(sizes[:fixed]) + sum(sizes[i] for i in [*groups[-1], column]) > width:
            groups.append([])
        groups[-1].append(column)
    lines: list[str] = []
    for group in groups:
        kept = [*range(fixed), *group]
        lines += ["|" + "|".join(row[i] for i in kept) + "|" for row in cells] + [""]
    return lines[:-1]
