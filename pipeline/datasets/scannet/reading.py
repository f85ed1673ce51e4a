"""Reading source files with one clear message for every fault: which file, what is wrong, what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError

AGAIN = "the file is truncated or damaged: download it again"


def read_bytes(path: Path, what: str, *, fix: str) -> bytes:
    """All bytes of a source file; DataError when it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{what} is missing", where=str(path), fix=fix) from None
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror})", where=str(path), fix=fix) from None


def read_text(path: Path, what: str, *, fix: str) -> str:
    """A source file as UTF-8 text."""
    try:
        return read_bytes(path, what, fix=fix).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is not text ({error.reason} at byte {error.start})", where=str(path), fix=AGAIN) from None


def read_json(path: Path, what: str, *, fix: str) -> Any:
    """Content of a JSON source file."""
    try:
        return json.loads(read_text(path, what, fix=fix))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number of thousands of digits
        raise DataError(f"{what} is not valid JSON ({error})", where=str(path), fix=AGAIN) from None


def read_json_object(path: Path, what: str, *, fix: str) -> dict[str, Any]:
    """Content of a JSON file that must hold an object."""
    content = read_json(path, what, fix=fix)
    if not isinstance(content, dict):
        raise DataError(f"{what} does not hold a JSON object", where=str(path), fix=AGAIN)
    return content
