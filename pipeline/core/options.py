"""Validation of option mappings with messages that name the key, the fault and the way out."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.core.errors import ConfigError

LARGEST_INTEGER = 2**53
"""Above it JSON readers round; a seed of torch ends at 2**64."""
_SHOWN_FAULTS = 5
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 120, 120


class Options(BaseModel):
    """Base of all option models: unknown keys are refused, numbers are finite and of a size that every library takes, values
    are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, content: object) -> object:
        """Pydantic would take `true` for 1 or 1.0, and integers that seeds and sizes cannot be."""
        for name, value in content.items() if isinstance(content, Mapping) else ():
            field = cls.model_fields.get(name)
            if field is None:
                continue
            for item in _items(value):
                if isinstance(item, bool) and not _mentions(field.annotation, (bool, Any)):
                    raise ValueError(f"{name}: {str(item).lower()} is no number and no text")
                if isinstance(item, int) and abs(item) > LARGEST_INTEGER:
                    raise ValueError(f"{name}: {_SHORT.repr(item)} is larger than {LARGEST_INTEGER}")
        return content


def _items(value: object, levels: int = 2) -> Iterator[object]:
    """A value, or what a list of values or of lists holds (no option is nested deeper, and aliases may nest without end)."""
    if isinstance(value, list | tuple):
        for item in value if levels else ():
            yield from _items(item, levels - 1)
    else:
        yield value


def _mentions(annotation: Any, wanted: tuple[Any, ...]) -> bool:
    """Return whether a type is one of ``wanted`` or made of one."""
    return annotation in wanted or any(_mentions(part, wanted) for part in get_args(annotation))


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


def validate(model: type[Model], content: object, *, where: str) -> Model:
    """``content`` as ``model``; ConfigError that names the first faults otherwise."""
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{_SHORT.repr(content)} is not a mapping", where=where, allowed=", ".join(sorted(model.model_fields))
        )
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [_line(model, fault) for fault in faults[:_SHOWN_FAULTS]]
        more = [f"and {len(faults) - _SHOWN_FAULTS} more"] if len(faults) > _SHOWN_FAULTS else []
        raise ConfigError("; ".join(lines + more), where=where) from None


def _line(model: type[BaseModel], fault: Any) -> str:
    """One fault that pydantic found, in this project's words."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        keys = _known_keys(model, fault["loc"][:-1])
        return f"unknown key {path!r}{did_you_mean(str(fault['loc'][-1]), keys)} (known: {', '.join(sorted(keys))})"
    if fault["type"] == "value_error":  # a check of this project's own, which says what it was given
        return f"{path}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    if fault["type"] == "missing":
        return f"{path}: {fault['msg']}"
    text = fault["msg"]
    if fault["type"] in ("tuple_type", "list_type"):  # words of Python, not of YAML
        text = "must be a list, as [a, b]"
    elif fault["type"] == "too_short":
        text = f"needs entries, at least {fault['ctx']['min_length']}"
    return f"{path}: {text} (got {_SHORT.repr(fault['input'])})"
