"""Validation of option mappings with messages that name the key, the fault and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError


class Options(BaseModel):
    """Base of all option models: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def did_you_mean(name: str, available: Iterable[str]) -> str:
    """A clause like ``, did you mean 'vggt'?`` or the empty string."""
    close = difflib.get_close_matches(name, list(available), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _model_of(annotation: Any) -> Any:
    """The option model in ``Model | None``; anything else as it is."""
    models = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
    return models[0] if models else annotation


def _known_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys of the (nested) model in which ``location`` lies."""
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if isinstance(current, type) and issubclass(current, BaseModel) else None
        if field is None:
            break
        current = _model_of(field.annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def validate(model: type[Model], content: Mapping[str, Any], *, where: str) -> Model:
    """``content`` as ``model``; ConfigError with one line per fault otherwise."""
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            path = ".".join(str(p) for p in fault["loc"])
            if fault["type"] == "extra_forbidden":
                keys = _known_keys(model, fault["loc"][:-1])
                lines.append(
                    f"unknown key {path!r}{did_you_mean(str(fault['loc'][-1]), keys)} (known: {', '.join(sorted(keys))})"
                )
            else:
                lines.append(f"{path}: {fault['msg']} (got {fault['input']!r})")
        raise ConfigError("; ".join(lines), where=where) from None
