"""Parquet files that tell when they were damaged.

Page checksums do not cover a file's footer, where column sizes and our own metadata stand, and one flipped bit there is another
number. So a file carries a digest of what a reader gets: every column's values and the metadata. It is compared on every read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import DataError
from pipeline.core.files import check_readable
from pipeline.core.provenance import write_atomic

_DIGEST = b"pipeline.content"


def content_digest(table: pa.Table) -> str:
    """SHA-256 (hex) of column names, values and key-value metadata; the same for every version of Arrow."""
    value = hashlib.sha256()
    metadata = {key: text for key, text in (table.schema.metadata or {}).items() if key != _DIGEST}
    for key in sorted(metadata):
        value.update(key + b"\x1f" + metadata[key] + b"\x1e")
    for field in table.schema:
        value.update(f"{field.name}\x1e".encode())
        value.update(json.dumps(table.column(field.name).to_pylist()).encode())
    return value.hexdigest()


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table atomically, with page checksums and its content's digest; equal tables give equal bytes."""
    known: Mapping[Any, Any] = table.schema.metadata or {}
    table = table.replace_schema_metadata({**known, _DIGEST: content_digest(table).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", version="2.6", write_page_checksum=True)
    write_atomic(path, sink.getvalue().to_pybytes())


def read_parquet(path: Path, *, made_by: str, own: bool = True) -> pa.Table:
    """Read what ``write_parquet`` wrote. DataError when the file is missing, no Parquet file, or not what was written.

    ``own`` False: a file that carries no digest (somebody else's, whose bytes the caller has compared) is read as well.
    """
    fix = f"delete it and run: {made_by}"
    check_readable(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
        found = (table.schema.metadata or {}).get(_DIGEST, b"").decode(errors="replace")
        good = found == content_digest(table)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", fix=made_by) from None
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"{path} cannot be read ({error.strerror})", fix=made_by) from None
        raise DataError(f"{path} is damaged ({error})", fix=fix) from None
    except (pa.ArrowException, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({error})", fix=fix) from None
    if not good and (own or found):
        what = "is damaged or was edited: it contradicts its own digest" if found else "carries no digest of its content"
        raise DataError(f"{path} {what}", fix=fix)
    return table
