"""Lossless packing of a view's stored numbers.

bfloat16 (held as uint16): 12 bits instead of 16 a number, see exponents.py. float32 and int8: Blosc's bit shuffle and LZ4, a
codec of Zarr v3 that zarr-python has. The bit shuffle puts equal bits of many numbers side by side, and LZ4 shortens the bits
of exponents that repeat; it unpacks at the speed of memory. Figures are in docs/features.md.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.features import exponents

if TYPE_CHECKING:
    from numcodecs.blosc import Blosc
    from zarr.abc.codec import BytesBytesCodec

Compression = Literal["none", "lossless"]
COMPRESSIONS: tuple[str, ...] = get_args(Compression)

_LEVEL = 5
_HEADER_BYTES = 16  # Blosc's: its second and fourth group of four bytes are the bytes before and after packing


@lru_cache(maxsize=8)
def _codec(itemsize: int) -> Blosc:
    from numcodecs import blosc

    # As zarr-python sets it: views are packed side by side by our own threads, Blosc's would wait for one another.
    blosc.use_threads = False
    return blosc.Blosc(cname="lz4", clevel=_LEVEL, shuffle=blosc.BITSHUFFLE, typesize=itemsize)


def zarr_codec(dtype: np.dtype[Any]) -> BytesBytesCodec:
    """The codec of numbers of this type as zarr-python writes it into an array's description."""
    if dtype == np.uint16:
        from pipeline.features.zarr_codec import Bfloat16Codec

        return Bfloat16Codec()
    from zarr.codecs import BloscCodec

    return BloscCodec(typesize=dtype.itemsize, cname="lz4", clevel=_LEVEL, shuffle="bitshuffle")


def raw_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes (n,) of numbers; a copy only where they do not lie one after the other."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def pack(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers of any shape -> bytes (n,), at most 34 more than they have. uint16 are bit patterns of bfloat16."""
    if values.dtype == np.uint16:
        return exponents.pack(np.ascontiguousarray(values).reshape(-1), _pack_with_blosc)
    return _pack_with_blosc(values)


def unpack(packed: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Bytes of ``pack`` -> the numbers, into ``out`` (contiguous). ValueError when they are not of that size or not packed."""
    if out.dtype == np.uint16:
        exponents.unpack(packed, out.reshape(-1), _unpack_with_blosc)
    else:
        _unpack_with_blosc(packed, out)


def _pack_with_blosc(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(_codec(values.itemsize).encode(raw_bytes(values)), dtype=np.uint8)


def _unpack_with_blosc(packed: NDArray[np.uint8], out: NDArray[Any]) -> None:
    if len(packed) < _HEADER_BYTES or struct.unpack_from("<I4xI", packed.data, 4) != (out.nbytes, len(packed)):
        raise ValueError(f"{len(packed)} packed bytes are not of {out.nbytes} bytes")
    try:
        _codec(out.itemsize).decode(packed, raw_bytes(out))
    except RuntimeError as error:  # of Blosc: the bytes are not its own
        raise ValueError(str(error)) from None
