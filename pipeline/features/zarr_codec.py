"""The packing of bfloat16 as a codec of zarr-python, so that Zarr reads and writes packed stores like all others.

Importing this module registers it; where the package is installed, zarr-python finds it by its entry point "zarr.codecs".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from zarr.abc.codec import BytesBytesCodec
from zarr.core.common import JSON, parse_named_configuration
from zarr.registry import register_codec

from pipeline.features.packing import pack, unpack

if TYPE_CHECKING:
    from typing import Self

    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME = "threedrs.bfloat16"


@dataclass(frozen=True)
class Bfloat16Codec(BytesBytesCodec):
    """Bytes of little-endian uint16 that are bit patterns of bfloat16 <-> packed bytes (exponents.py)."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        parse_named_configuration(data, NAME, require_configuration=False)
        return cls()

    def to_dict(self) -> dict[str, JSON]:
        return {"name": NAME}

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        bits = np.empty(int(np.prod(chunk_spec.shape)), dtype=np.uint16)
        unpack(chunk_bytes.as_numpy_array().view(np.uint8), bits)
        return chunk_spec.prototype.buffer.from_array_like(bits.view(np.uint8))

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        bits = np.ascontiguousarray(chunk_bytes.as_numpy_array()).view(np.uint16)
        return chunk_spec.prototype.buffer.from_array_like(pack(bits))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the size of packed numbers depends on them")


register_codec(NAME, Bfloat16Codec)
