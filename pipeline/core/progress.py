"""Progress on stderr: a bar on a terminal, else one line every few seconds, so that a log file stays readable."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_EVERY_S = 5.0
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_noinv_fmt}, about {remaining} left{postfix}]"
"""On a terminal. Always units per second: tqdm's own format turns to seconds per unit where they are slow."""


class Progress:
    """Counts ``total`` units. ``with Progress("extract", 480, "scenes") as progress: progress.step()``."""

    def __init__(self, label: str, total: int, unit: str):
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._start = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True, bar_format=BAR)

    def step(self, count: int = 1, note: str = "") -> None:
        """``count`` more units are done; ``note`` is a short state such as "loss 0.31"."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._said >= LINE_EVERY_S:
            self._say(note)

    def _say(self, note: str) -> None:
        self._said = time.monotonic()
        spent_s = self._said - self._start
        left_s = spent_s / max(self.done, 1) * (self.total - self.done)
        note = f", {note}" if note else ""
        rate = f"{self.done / spent_s:.3g} {self.unit}/s" if spent_s > 0 else ""
        text = f"{self.label}: {self.done}/{self.total} {self.unit}, {spent_s:.0f} s, {rate}, about {_span(left_s)} left{note}"
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif error is None and self.total:
            spent_s = time.monotonic() - self._start
            rate = f", {self.done / spent_s:.3g} {self.unit}/s" if spent_s > 0 else ""
            print(f"{self.label}: {self.done}/{self.total} {self.unit} in {spent_s:.1f} s{rate}", file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    """A time in the unit that suits it: "48 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
