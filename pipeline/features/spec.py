"""Specification of a feature store. Two stores are interchangeable exactly when their specs have the same digest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pipeline.core.errors import StoreError
from pipeline.core.options import did_you_mean
from pipeline.core.provenance import digest
from pipeline.features.dtypes import COMPRESSIONS, DTYPES, Compression, StoredDtype, stored_type
from pipeline.scenes.conventions import checked_id
from pipeline.scenes.grid import TokenGrid

SCHEMA_VERSION = 6

SCALES = "scales"
EXTRAS = ("confidence", "depth", "pose")
"""Arrays that a teacher may or may not have; the names of fields of TeacherFeatures."""


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Everything that decides the numbers in a store.

    ``options`` and ``weights`` are digests of the teacher's options and weights, ``feature_layer`` says which layer is taken,
    ``code`` is the digest of the code that extracts. journal.py records what a scene's features were made
    from, so that a changed scene costs that scene alone. ``window`` is the part of the image that the ``rows`` x ``cols``
    tokens cover (see grid.py).

    ``layers`` (name, width) are the layers concatenated on D, in order; () stands for one layer "tokens" of width
    ``dim``. ``member`` is the teacher's config entry {"name", "kind", "options"}, which rebuilds it. ``native`` is the
    teacher's own grid when the store's grid is another one (features are averaged into it), else None; that of the first
    scene where image sizes differ.
    ``compression`` of the tokens changes no number (dtypes.py).
    """

    dataset: str
    teacher: str
    kind: str
    dim: int
    rows: int
    cols: int
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    dtype: StoredDtype = "bfloat16"
    options: str = ""
    weights: str = ""
    feature_layer: str = ""
    code: str = ""
    schema: int = SCHEMA_VERSION
    layers: tuple[tuple[str, int], ...] = ()
    member: dict[str, Any] = field(default_factory=dict)
    native: TokenGrid | None = None
    compression: Compression = "none"

    def __post_init__(self) -> None:
        """Raise StoreError for invalid sizes, names and texts, layers that do not add up, an unknown dtype or compression."""
        where = f"feature store of teacher {self.teacher!r}"
        texts = (self.dataset, self.teacher, self.kind, self.options, self.weights, self.feature_layer, self.code)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.member, dict):
            raise StoreError("names, digests and feature_layer of a spec are texts, its member is a mapping", where=where)
        for grid in (self.grid, *([self.native] if self.native else [])):
            _check_grid(grid, where)
        if self.dtype not in DTYPES:
            raise StoreError(f"stored number format {self.dtype!r} is not known", where=where, allowed=", ".join(DTYPES))
        if self.compression not in COMPRESSIONS:
            raise StoreError(f"compression {self.compression!r} is not known", where=where, allowed=", ".join(COMPRESSIONS))
        if not self.layers:
            object.__setattr__(self, "layers", (("tokens", self.dim),))
        names, widths = [name for name, _ in self.layers], [width for _, width in self.layers]
        for name in names:
            checked_id(name, what="layer", where=where)
        if len(set(names)) != len(names) or not all(map(_is_size, widths)) or sum(widths) != self.dim or not _is_size(self.dim):
            raise StoreError(
                f"layers {dict(self.layers)} do not make up the width {self.dim}",
                where=where,
                allowed="different names whose widths (1 or more) add up to dim",
            )

    @property
    def grid(self) -> TokenGrid:
        """Return the token grid of every view as stored."""
        return TokenGrid(self.rows, self.cols, self.window)

    def columns(self, layer: str | None) -> slice:
        """Return where a layer lies on D; everything for None. Raise StoreError for an unknown layer."""
        if layer is None:
            return slice(0, self.dim)
        start = 0
        for name, width in self.layers:
            if name == layer:
                return slice(start, start + width)
            start += width
        names = [name for name, _ in self.layers]
        raise StoreError(
            f"teacher {self.teacher!r} has no layer {layer!r}{did_you_mean(layer, names)}",
            allowed=", ".join(names),
            fix="name one of these, or add the layer to the teacher's options and extract again",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content for a manifest."""
        return asdict(self) | {"window": list(self.window), "layers": [list(layer) for layer in self.layers]}

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> StoreSpec:
        """Parse the spec in a manifest. Raise StoreError when it is malformed or of another schema."""
        if not isinstance(content, Mapping) or content.get("schema") != SCHEMA_VERSION or content.get("dtype") not in DTYPES:
            found = content if isinstance(content, Mapping) else {}
            raise StoreError(
                f"the store has schema {found.get('schema')} and dtype {found.get('dtype')!r}",
                where=where,
                allowed=f"schema {SCHEMA_VERSION}, dtype {', '.join(DTYPES)}",
                fix=rebuild(where),
            )
        try:
            layers = tuple((str(name), width) for name, width in content["layers"])
            changed = {"window": tuple(content["window"]), "layers": layers, "native": _grid(content["native"])}
            return cls(**(dict(content) | changed))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StoreError(f"the store's spec is malformed ({error!r})", where=where, fix=rebuild(where)) from None

    def digest(self) -> str:
        """Return a digest of all fields."""
        return digest(self.to_json())

    def attributes(self) -> dict[str, Any]:
        """Return the group's zarr attributes, which describe the store to other readers: all fields and their digest."""
        numbers = "uint16 are bit patterns of bfloat16: (x.astype('uint32') << 16).view('float32')"
        told = {"bfloat16": {"numbers": numbers}, "int8": {"numbers": "tokens are int8 * scales[view, channel]"}}
        return self.to_json() | {"spec_digest": self.digest()} | told.get(self.dtype, {})


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_grid(grid: TokenGrid, where: str) -> None:
    """Raise StoreError for a grid without cells or without a window."""
    edges = grid.window
    good = _is_size(grid.rows) and _is_size(grid.cols) and len(edges) == 4
    good = good and all(isinstance(edge, int | float) and math.isfinite(edge) for edge in edges)
    if not good or edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise StoreError(f"{grid} is not a grid", where=where, allowed="1 row and column or more; window x0 < x1, y0 < y1")


def _grid(content: Mapping[str, Any] | None) -> TokenGrid | None:
    if content is None:
        return None
    x0, y0, x1, y1 = (float(edge) for edge in content["window"])
    return TokenGrid(int(content["rows"]), int(content["cols"]), (x0, y0, x1, y1))


def stored_grid(store: Mapping[str, Any], native: TokenGrid) -> tuple[TokenGrid, TokenGrid | None]:
    """Return the store's grid, and ``native`` when it differs, from the cell's ``store`` options {"grid": ...}.

    ``grid`` is "native" (the default) or {"rows", "cols", "window"}: a student's grid in image coordinates.
    """
    wanted = store.get("grid", "native")
    grid = native if wanted == "native" else _grid({"window": (0.0, 0.0, 1.0, 1.0), **wanted})
    assert grid is not None
    return (native, None) if grid == native else (grid, native)


def rebuild(manifest: object) -> str:
    """Return the command that rebuilds a feature manifest from what is still good."""
    return f"rm -f {manifest} && snakemake --cores all {manifest}"


class ArrayType(NamedTuple):
    """The form of a stored array: shape of one view, type on disk, compression of each view, names of a view's axes."""

    shape: tuple[int, ...]
    dtype: str
    compression: Compression = "none"
    axes: tuple[str, ...] = ()


def token_array(spec: StoreSpec, layer: str) -> str:
    """Name of the array that holds a layer: reading one layer touches no byte of the others."""
    return "tokens" if spec.layers == (("tokens", spec.dim),) else f"tokens.{layer}"


def array_types(spec: StoreSpec, names: Iterable[str]) -> dict[str, ArrayType]:
    """Return tokens, scales and, of ``names``, extras of a store. Only tokens are compressed: the rest is small."""
    kind, maps, axes = stored_type(spec.dtype), (spec.rows, spec.cols), ("row", "column")
    found = {
        token_array(spec, layer): ArrayType((*maps, width), kind, spec.compression, (*axes, "channel"))
        for layer, width in spec.layers
    }
    if spec.dtype == "int8":
        found[SCALES] = ArrayType((spec.dim,), "float32", axes=("channel",))
    extras = {name: ArrayType(maps, "float32", axes=axes) for name in EXTRAS}
    extras["pose"] = ArrayType((4, 4), "float32", axes=("world", "camera"))
    return found | {name: extras[name] for name in EXTRAS if name in set(names)}
