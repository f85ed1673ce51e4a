"""The readable summary of a made-up study must not drift: same tables, same words."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.tables.aggregate import cell_rows
from pipeline.tables.markdown import summary_markdown
from pipeline.tables.scores import load_cell

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "tables"))
import synthetic_study as study


def test_summary_text(tmp_path, golden):
    rows = []
    for backbone in ("internvl_tiny", "qwen2_5_vl_tiny"):
        rows += cell_rows(load_cell(*study.write_cell(tmp_path, backbone)))
    golden("tables/summary.md", summary_markdown(rows, {"level": 0.95}))
