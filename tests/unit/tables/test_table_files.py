"""Files: schema, duplicates, determinism, and the commands cell and summary from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import synthetic_study as study

from pipeline import __main__ as command
from pipeline.core.errors import DataError
from pipeline.core.parquet import write_parquet
from pipeline.core.text_tables import fit_width, render_table
from pipeline.tables.markdown import summary_markdown
from pipeline.tables.schema import SCHEMA, concatenate, read_table, write_table
from pipeline.tables.text import number


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> list[Path]:
    """Two cell tables made by the command."""
    root = tmp_path_factory.mktemp("study")
    made = []
    for backbone in ("large", "tiny"):
        spec, scores, manifests = study.write_cell(root, backbone)
        out = root / f"results/tables/cells/rooms/{backbone}.parquet"
        files = ["--scores", *map(str, reversed(scores)), "--runs", *map(str, manifests)]
        assert command.main(["cell", "--spec", json.dumps(spec), *files, "--out", str(out)]) == 0
        made.append(out)
    return made


def test_cell_is_the_same_byte_for_byte_and_carries_its_provenance(cells, tmp_path):
    spec, scores, manifests = study.write_cell(tmp_path, "tiny")
    out = tmp_path / "again.parquet"
    files = ["--scores", *map(str, scores), "--runs", *map(str, manifests)]
    assert command.main(["cell", "--spec", json.dumps(spec), *files, "--out", str(out)]) == 0
    assert out.read_bytes() == cells[1].read_bytes()
    table = pq.read_table(out)
    assert table.schema.equals(SCHEMA)
    assert table.schema.field("diff_to_none").metadata[b"description"]
    metadata = json.loads(table.schema.metadata[b"pipeline"])
    assert metadata["level"] == 0.95
    assert "pyarrow" in metadata["packages"]


def test_summary_concatenates_in_order_and_prints_its_text(cells, tmp_path, capsys):
    out = tmp_path / "summary.parquet"
    given = ["--cells", *map(str, cells), "--out", str(out)]
    assert command.main(["summary", *given]) == 0
    printed = capsys.readouterr().out
    rows, _ = read_table(out, made_by="x")
    assert rows == [row for path in cells for row in read_table(path, made_by="x")[0]]
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "### Does a teacher lift the scores?" in text
    assert "### Does correspondence go with performance?" in printed
    before = out.read_bytes(), text
    assert command.main(["summary", *given]) == 0
    assert before == (out.read_bytes(), out.with_suffix(".md").read_text(encoding="utf-8"))


def test_a_cell_of_another_study_is_refused(cells, tmp_path, capsys):
    made = read_table(cells[0], made_by="x")[1]["spec"]
    given = ["--cells", *map(str, cells), "--out", str(tmp_path / "summary.parquet")]
    for asked, code in ((made, 0), ("f" * 16, 2)):
        assert command.main(["summary", "--spec", json.dumps({"cells": {str(cells[0]): asked}}), *given]) == code
    assert f"{cells[0]} is not the cell of this study" in capsys.readouterr().err


def test_a_cell_given_twice_is_refused(cells, tmp_path, capsys):
    out = tmp_path / "summary.parquet"
    assert command.main(["summary", "--cells", str(cells[0]), str(cells[0]), "--out", str(out)]) == 2
    assert "two rows for dataset=rooms, backbone=large, teacher=none" in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_or_foreign_table_is_refused(cells, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "none.parquet", made_by="x")
    (tmp_path / "cut.parquet").write_bytes(cells[0].read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_table(tmp_path / "cut.parquet", made_by="x")
    write_parquet(tmp_path / "old.parquet", pq.read_table(cells[0]).drop_columns(["n"]))
    with pytest.raises(DataError, match="another table schema"):
        read_table(tmp_path / "old.parquet", made_by="x")


def test_duplicates_and_unlike_levels_are_refused(cells, tmp_path):
    rows, metadata = read_table(cells[0], made_by="x")
    with pytest.raises(DataError, match="two rows for"):
        write_table(tmp_path / "twice.parquet", [*rows, rows[3]], metadata)
    other, _ = read_table(cells[1], made_by="x")
    with pytest.raises(DataError, match=r"different levels: \[0.9, 0.95\]"):
        concatenate([(cells[0], rows, metadata), (cells[1], other, metadata | {"level": 0.9})])
    with pytest.raises(DataError, match="no cell tables"):
        concatenate([])


def test_a_study_of_hidden_answers_has_no_score_and_says_so(cells):
    rows, metadata = read_table(cells[0], made_by="x")
    text = summary_markdown([row | {"headline": False} for row in rows], metadata)
    assert text.endswith("## rooms · recipe 3drs\n\nNo score: the questions of this split come without answers.\n")


def test_numbers_as_text():
    assert number(-1.26, "percent", sign=True) == "−1.3"
    assert number(0.01, "percent", sign=True) == "0.0"
    assert number(-0.0004, "cosine", sign=True) == "0.000"
    assert number(None, "percent") == "–"


def test_wide_tables_are_cut_for_narrow_terminals():
    table = render_table(
        ["backbone", "teacher", *(f"benchmark{i}" for i in range(6))], [["a", "none", *("1.0" for _ in range(6))]]
    )
    text = fit_width("\n".join(["words " * 30, *table]), 60)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("| backbone | teacher |") for line in lines) == 3
    assert "benchmark5" in text
    assert fit_width("\n".join(table), 400) == "\n".join(table) + "\n"


def test_table_modules_and_steps_import_no_torch():
    names = ("commands.cell", "commands.summary")
    modules = ", ".join(f"pipeline.{name}" for name in names)
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
