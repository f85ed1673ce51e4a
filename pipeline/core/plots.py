"""How figures look: matplotlib without a display and without the user's own settings; equal inputs give equal bytes."""

from __future__ import annotations

import functools
import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9CA3AF",
    "axes.labelcolor": "#374151",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": "#4B5563",
    "ytick.color": "#374151",
    "grid.color": "#E5E7EB",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
_DPI = 150


def new_figure(rows: int, cols: int, width: float, height: float, **options: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure without pyplot (no global state, no display) and its axes (rows, cols)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, cols, squeeze=False, **options)


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=_DPI, metadata={"Software": None})
    return sink.getvalue()


def styled(draw: Any) -> Any:
    """Decorator: draw with the report's style and nothing of the user's matplotlib settings."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **options: Any) -> bytes:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return _png(draw(*args, **options))

    return wrapped
