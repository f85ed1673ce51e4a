"""Making an external model: build it by its factory, check its weights file against it, find the module to be tapped."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.nets.external.spec import ExternalSpec, resolve, users_code
from pipeline.nets.weights import check_shapes, entry_shapes, named, read_shapes, read_weights, state_digest
from pipeline.options import did_you_mean
from pipeline.provenance import code_digest, digest

SEED = 0
"""Of whatever a factory draws: weights that no file fills must at least be the same in every shard."""
Value = TypeVar("Value")


def build_model(spec: ExternalSpec, *, meta: bool = False) -> nn.Module:
    """What the factory makes of its arguments (``meta``: without memory); the global generator is left alone."""
    factory = resolve(spec.factory, where=spec.where("factory"))
    without_memory = torch.device("meta") if meta else nullcontext()
    with torch.random.fork_rng(devices=[]), without_memory:
        torch.manual_seed(SEED)
        with users_code(f"{spec.factory} with the given arguments", where=spec.where("arguments"), mend="mend the arguments"):
            model = factory(**spec.arguments)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{spec.factory} gives a {type(model).__name__}", where=spec.where("factory"), allowed="a torch.nn.Module"
        )
    return model


def load_model(spec: ExternalSpec) -> tuple[nn.Module, str]:
    """The model with its weights, and a digest of weights and code."""
    model = build_model(spec)
    if spec.weights is not None:
        state = _selected(spec, read_weights(spec.weights, mend=_mend(spec)))
        entries = _fitting(spec, model, entry_shapes(state, where=str(spec.weights)))
        model.load_state_dict({name: state[name] for name in entries}, strict=spec.weights_match != "partial")
    code = [_code(name) for name in (spec.factory, spec.tap) if name and ":" in name]
    return model, digest([state_digest(_tensors(model)), code])


def check_model(spec: ExternalSpec) -> None:
    """Check what can be checked without computing: imports; with a weights file also its entries, call and tap.

    A factory that loads weights by itself is not run: that would be the whole load.
    """
    resolve(spec.factory, where=spec.where("factory"))
    if spec.tap is not None and ":" in spec.tap:
        resolve(spec.tap, where=spec.where("tap"))
    if spec.weights is None:
        return
    shapes = _shapes_in_file(spec, spec.weights)
    model = _skeleton(spec)
    called(spec, model)
    tapped_module(spec, model)
    _fitting(spec, model, shapes)


def called(spec: ExternalSpec, model: nn.Module) -> Any:
    """The model itself, or the submodule or method that ``call`` names."""
    found: Any = model
    for part in spec.call.split(".") if spec.call else ():
        if not hasattr(found, part):
            raise ConfigError(
                f"the model has no {spec.call!r}{did_you_mean(part, dir(found))}",
                where=spec.where("call"),
                allowed="path of a submodule or method of what the factory makes",
            )
        found = getattr(found, part)
    return found


def tapped_module(spec: ExternalSpec, model: nn.Module) -> nn.Module | None:
    """The module whose output is taken; None when it is what the call returns or a function's result."""
    if spec.tap is None or ":" in spec.tap:
        return None
    modules = dict(model.named_modules())
    if spec.tap not in modules:
        children = [name for name, _ in model.named_children()]
        raise ConfigError(
            f"the model has no module {spec.tap!r}{did_you_mean(spec.tap, modules)}",
            where=spec.where("tap"),
            allowed=f"a path below: {', '.join(children)}",
            mend=f"list them: python -c 'from {spec.factory.replace(':', ' import ')} as f; "
            "[print(n) for n, _ in f(...).named_modules()]'",
        )
    return modules[spec.tap]


def _mend(spec: ExternalSpec) -> str:
    return f"get the weights ({spec.source or 'see the package'}) and name the file: teachers.{spec.teacher}.weights"


def _other(spec: ExternalSpec) -> str:
    return f"name the weights of {spec.factory} ({spec.where('weights')}), or mend {spec.where('arguments')}"


def _shapes_in_file(spec: ExternalSpec, path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        return _selected(spec, read_shapes(path, mend=_mend(spec)))
    return entry_shapes(_selected(spec, read_weights(path, mend=_mend(spec))), where=str(path))


def _selected(spec: ExternalSpec, content: Mapping[str, Value]) -> dict[str, Value]:
    """The entries below ``weights_key`` and ``weights_prefix``, without the prefix."""
    where, found = str(spec.weights), content
    if spec.weights_key is not None:
        inner = content.get(spec.weights_key)
        if not isinstance(inner, Mapping):
            raise CheckpointError(
                f"the weights file has no mapping {spec.weights_key!r}{did_you_mean(spec.weights_key, content)}",
                where=where,
                allowed=f"one of its keys: {', '.join(list(content)[:8])}",
                mend=f"mend {spec.where('weights_key')}",
            )
        found = named(inner, where=where)
    selected = {name.removeprefix(spec.weights_prefix): v for name, v in found.items() if name.startswith(spec.weights_prefix)}
    if not selected:
        starts = sorted({name.split(".")[0] + "." for name in found})
        raise CheckpointError(
            f"no entry of the weights file starts with {spec.weights_prefix!r}",
            where=where,
            allowed=", ".join(starts[:8]) or "(the file is empty)",
            mend=f"mend {spec.where('weights_prefix')}",
        )
    return selected


def _fitting(spec: ExternalSpec, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the entries to load. CheckpointError when the file does not match as strictly as asked."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    used = dict(shapes) if spec.weights_match == "exact" else {name: s for name, s in shapes.items() if name in own}
    if not used:
        raise CheckpointError(
            f"the file's {len(shapes)} entries have no name in common with the model's {len(own)}",
            where=str(spec.weights),
            allowed=f"names like {next(iter(own), '(none)')!r}; the file has {next(iter(shapes))!r}",
            mend=f"mend {spec.where('weights_prefix')}",
        )
    check_shapes(model, own | used if spec.weights_match == "partial" else used, where=str(spec.weights), mend=_other(spec))
    return list(used)


def _skeleton(spec: ExternalSpec) -> nn.Module:
    """The model without memory where its code allows that, else on the CPU."""
    try:
        return build_model(spec, meta=True)
    except ConfigError:
        return build_model(spec)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _code(name: str) -> list[str]:
    """Version of the package and digest of the module that ``package.module:name`` is imported from; "" where unknown."""
    module = name.partition(":")[0]
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    try:
        version = importlib.metadata.version(module.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return [version, code_digest([path]) if path.suffix == ".py" and path.is_file() else ""]
