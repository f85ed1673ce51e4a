"""What a feature store holds. Two stores are interchangeable exactly when their specs have the same digest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import StoreError
from pipeline.grid import TokenGrid
from pipeline.provenance import digest

SCHEMA_VERSION = 1

StoredDtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Everything that decides the numbers in a store.

    ``options`` and ``weights`` are digests of the teacher's options and weights, ``tap`` says in words which layer is taken,
    ``frames`` is the digest of the scene index (its scenes, their ordered frames and their files), ``code`` the digest of the
    code that extracts. ``window`` is the part of the image that the ``rows`` x ``cols`` tokens cover (see grid.py).
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
    tap: str = ""
    frames: str = ""
    code: str = ""
    schema: int = SCHEMA_VERSION

    @property
    def grid(self) -> TokenGrid:
        """The token grid of every view."""
        return TokenGrid(self.rows, self.cols, self.window)

    def to_json(self) -> dict[str, Any]:
        """Content for a manifest."""
        return asdict(self) | {"window": list(self.window)}

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> StoreSpec:
        """The spec in a manifest. StoreError when it is malformed or of another schema."""
        try:
            spec = cls(**(content | {"window": tuple(content["window"])}))
        except (TypeError, KeyError) as error:
            raise StoreError(f"the store's spec is malformed ({error!r})", where=where, mend=rebuild(where)) from None
        if spec.schema != SCHEMA_VERSION or spec.dtype not in ("bfloat16", "float32"):
            raise StoreError(
                f"the store has schema {spec.schema} and dtype {spec.dtype!r}",
                where=where,
                allowed=f"schema {SCHEMA_VERSION}, dtype bfloat16 or float32",
                mend=rebuild(where),
            )
        return spec

    def digest(self) -> str:
        """Digest of all fields."""
        return digest(self.to_json())


def rebuild(manifest: object) -> str:
    """The command that makes a feature manifest again from what is still good."""
    return f"snakemake --cores all -f {manifest}"
