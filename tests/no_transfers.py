"""A guard for forwards: tensors on the meta device hold no numbers, so a host that wants one fails; so does a copy here."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoTransfers(TorchDispatchMode):
    """Refuses whatever makes the host wait for the device or copies between them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"), name
        result = func(*args, **kwargs)
        tensors = [value for value in args if isinstance(value, torch.Tensor) and value.dim()]
        if name in ("_to_copy", "copy_") and tensors and isinstance(result, torch.Tensor):
            assert {value.device for value in tensors} == {result.device}, f"copy to {result.device}"
        return result
