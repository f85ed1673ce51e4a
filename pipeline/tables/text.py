"""How numbers, marks and tables are written, in summary.md and on the report page alike."""

from __future__ import annotations

from pipeline.tables.findings import Estimate
from pipeline.tables.schema import Row
from pipeline.tables.uncertainty import MIN_SCENES

MARKS = {(1, True): "▲", (1, False): "△", (-1, True): "▼", (-1, False): "▽"}
LEGEND = (
    "▲ ▼ interval of the difference excludes 0 and every seed has its sign · "
    "△ ▽ interval excludes 0 but the seeds disagree · no mark: the interval includes 0, or there is none"
)


def intervals_sentence(level: float) -> str:
    """Return what an interval holds, where there is none, and how often a mark means nothing."""
    return (
        f"{level:.0%} intervals cover variation between test scenes and between training seeds (of these backbones, on these "
        "benchmarks); differences are paired by scene and seed. A number has no interval and no mark below "
        f"{MIN_SCENES} scenes, below two seeds, and with two seeds of a single teacher. By chance alone {1 - level:.0%} of all "
        "differences would have a mark."
    )


def number(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Format a value in its unit's precision, ``–`` for none; ``sign`` prints a plus as well."""
    if value is None or value != value:
        return "–"
    digits = {"cosine": 3, "rank correlation": 2, "count": 0}.get(unit, 1)
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return (text if float(text) else text.lstrip("+-")).replace("-", "−")


def mark(row: Row) -> str:
    """Return whether the interval of a row's difference excludes zero (see LEGEND)."""
    sign = Estimate(0.0, row["diff_low"], row["diff_high"], 0).sign
    return MARKS[sign, all(value * sign > 0 for value in row["diff_seed_values"])] if sign else ""


def half_width(row: Row) -> str:
    """Format ``±1.2``, the larger side of a value's interval (its unit may cut the other); nothing without one."""
    if row["ci_low"] is None:
        return ""
    return f"±{number(max(row['value'] - row['ci_low'], row['ci_high'] - row['value']), row['unit'])}"


def interval_text(low: float | None, high: float | None, unit: str) -> str:
    """Format ``[low, high]`` with signs, ``[–]`` where there is none."""
    if low is None or high is None:
        return "[–]"
    return f"[{number(low, unit, sign=True)}, {number(high, unit, sign=True)}]"


def estimate_text(estimate: Estimate, unit: str = "percent") -> str:
    """Format ``+1.2 [+0.1, +2.3]``."""
    return f"{number(estimate.value, unit, sign=True)} {interval_text(estimate.low, estimate.high, unit)}"
