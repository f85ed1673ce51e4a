"""What is said about an external model, and how its faults are told: what is wrong in whose code, which option mends it."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConfigError, EnvironmentFaultError, PipelineError
from pipeline.features.memory import out_of_memory
from pipeline.options import did_you_mean

Views = Literal["together", "together_flat", "separately"]
OutputLayout = Literal["tokens", "channels_last", "channels_first"]
Match = Literal["exact", "superset", "partial"]


@dataclass(frozen=True)
class ExternalSpec:
    """The options of one external teacher that concern its model; see pipeline/teachers/external.py for their meaning."""

    teacher: str
    factory: str
    arguments: Mapping[str, Any]
    weights: Path | None
    weights_key: str | None
    weights_prefix: str
    weights_match: Match
    source: str
    call: str | None
    images_argument: str | None
    views: Views
    tap: str | None
    output: tuple[int | str, ...]
    output_layout: OutputLayout
    lead_tokens: int
    dim: int

    def where(self, option: str) -> str:
        """The place of an option, for messages."""
        return f"config.yaml: teachers.{self.teacher}.{option}"


def resolve(name: str, *, where: str) -> Any:
    """The object that ``package.module:attribute.path`` names. One message when the import or the attribute fails."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _not_installed(module_name, str(error.name), where) from None
    except Exception as error:  # a package may raise anything when it is imported; it is not ours
        raise EnvironmentFaultError(
            f"importing {module_name!r} fails ({_one_line(error)})", where=f"{where}, at {_place(error)}",
            mend=f"try it alone: python -c 'import {module_name}'",
        ) from error  # fmt: skip
    for part in path.split("."):
        if not hasattr(found, part):
            public = [candidate for candidate in dir(found) if not candidate.startswith("_")]
            raise ConfigError(
                f"{module_name!r} has no {path!r}{did_you_mean(part, public)}", where=where, allowed=_some(public)
            )
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name!r} is a {type(found).__name__}, not a class or function", where=where)
    return found


def _not_installed(module: str, missing: str, where: str) -> EnvironmentFaultError:
    own = module == missing or module.startswith(f"{missing}.")
    return EnvironmentFaultError(
        f"there is no module {missing!r}" if own else f"module {module!r} needs {missing!r}, which is not installed",
        where=where,
        allowed="package.module:name of a package that is installed in this environment",
        mend=f"install it here, and try: python -c 'import {module}'",
    )


@contextmanager
def users_code(doing: str, *, where: str, mend: str) -> Iterator[None]:
    """Turn what code of another package raises into one message that names its place; want of memory passes unchanged."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # another package's code may raise anything
        if out_of_memory(error):
            raise
        raise ConfigError(f"{doing} fails ({_one_line(error)})", where=f"{where}, at {_place(error)}", mend=mend) from error


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "its own code"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 12 else shown or "(nothing)"
