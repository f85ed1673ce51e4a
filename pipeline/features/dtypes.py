"""Stored number formats (bfloat16, float32, int8 with one float32 scale per channel and view) and their packing without loss.

zarr has no bfloat16, so a bf16 store holds its bit patterns as uint16 and says so in its spec and in its groups' attributes.

Packed views are Blosc's (bit shuffle, LZ4), a codec that zarr-python and numcodecs bring: the bit shuffle puts equal bits of
many numbers side by side, and LZ4 shortens the bits of exponents that repeat. Figures are in docs/features.md.

What a format does to a feature is stated as the largest 1 - cosine between a token before and after (``cosine_error``):

* float32   0.
* bfloat16  8e-6: every number moves by at most 2^-8 of itself, so 1 - cos <= (2^-8)^2 / 2 for any token.
* int8      a channel with largest absolute value m over the cells of a view has steps of m / 127, so a number moves by at most
            m / 254: for any token 1 - cos <= r^2 with r^2 = sum of (m / 254)^2 over channels / squared norm of the token.
            Measured on random features: 3e-5 for bell-shaped channels, 1e-3 where single channels are a hundred times the
            others, 2e-3 where single cells are fifty times the others. Every scene's own is measured when it is written and
            stands in its manifest entry; beyond ``INT8_LIMIT`` the scene is refused.

torch and numcodecs are imported where they are used: `check` and `doctor` size stores without them, in 0.3 instead of 1.4 s.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numcodecs.blosc import Blosc

StoredDtype = Literal["bfloat16", "float32", "int8"]
DTYPES: tuple[str, ...] = get_args(StoredDtype)

Compression = Literal["none", "lossless"]
COMPRESSIONS: tuple[str, ...] = get_args(Compression)

BLOSC: dict[str, Any] = {"cname": "lz4", "clevel": 5}
"""Higher levels and zstd save at most a tenth more bytes and take 3 to 50 times as long (docs/features.md)."""

_HEADER_BYTES = 16  # Blosc's: its second and fourth group of four bytes are the bytes before and after packing

INT8_LIMIT = 0.02
"""Largest 1 - cosine that an int8 store accepts: 11 degrees; above it a token has lost its direction."""

STATED_ERROR = {"float32": 0.0, "bfloat16": 8e-6, "int8": INT8_LIMIT}
"""Per dtype the largest 1 - cosine between a token before and after storing."""


def to_bfloat16_bits(values: NDArray[np.float32], out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
    """Convert float32 to bfloat16 bit patterns: round to nearest, ties to even; NaN stays NaN, overflow becomes infinite.

    Into ``out`` when given: new memory for every view costs as much as the conversion.
    """
    import torch

    # torch does in one vectorised pass what takes numpy eight: 1 instead of 9 ms per view of VGGT.
    result = np.empty(values.shape, dtype=np.uint16) if out is None else out
    source = torch.from_numpy(_writable(np.ascontiguousarray(values, dtype=np.float32)))
    torch.from_numpy(result).view(torch.bfloat16).copy_(source)
    return result


def from_bfloat16_bits(bits: NDArray[np.uint16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Convert bfloat16 bit patterns to float32, exactly; into ``out`` when given."""
    import torch

    # torch again: one vectorised pass where numpy first makes 32-bit integers, 14 instead of 33 ms for a scene of VGGT.
    result = np.empty(bits.shape, dtype=np.float32) if out is None else out
    torch.from_numpy(result).copy_(torch.from_numpy(_writable(bits)).view(torch.bfloat16))
    return result


def _writable(stored: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers in memory that torch takes without a warning; stored views are mapped that way already."""
    return stored if stored.flags.writeable else stored.copy()


def quantise(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise one view's tokens (G,K,D) to int8 with scales (D,): value = number * scale; 0 for a channel of zeros."""
    flat = values.reshape(-1, values.shape[-1])
    scales = (np.maximum(flat.max(0), -flat.min(0)) / np.float32(127)).astype(np.float32)
    steps = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > np.finfo(np.float32).tiny)
    scaled = flat * steps
    return np.rint(scaled, out=scaled).astype(np.int8).reshape(values.shape), scales


def encode(values: NDArray[np.float32], dtype: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Convert float32 values to a store's ``dtype``: "bfloat16" (into ``out`` when given) or "float32".

    int8 has scales: see ``quantise``.
    """
    return to_bfloat16_bits(values, out) if dtype == "bfloat16" else np.ascontiguousarray(values, dtype="<f4")


def decode(
    stored: NDArray[Any], dtype: str, scales: NDArray[np.float32] | None = None, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Convert stored numbers (...,D) to float32, into ``out`` when given; ``scales`` (D,) belong to int8."""
    if dtype == "bfloat16":
        return from_bfloat16_bits(stored, out)
    result = np.empty(stored.shape, dtype=np.float32) if out is None else out
    if dtype == "int8":
        import torch

        assert scales is not None
        torch.from_numpy(result).copy_(torch.from_numpy(_writable(stored))).mul_(torch.from_numpy(_writable(scales)))
    else:
        result[...] = stored
    return result


def finite(stored: NDArray[Any]) -> bool:
    """Return whether stored tokens hold neither NaN nor infinities (bfloat16 bits, float32; int8 always). Needs no memory."""
    if not stored.size or stored.dtype == np.int8:
        return True
    if stored.dtype == np.uint16:  # all exponent bits set: the largest numbers of either sign bit
        return bool(stored.view(np.int16).max() < 0x7F80 and stored.max() < 0xFF80)
    return bool(np.isfinite(stored.max()) and np.isfinite(stored.min()))


def stored_type(dtype: str) -> str:
    """Return the array type on disk."""
    return {"bfloat16": "uint16", "float32": "float32", "int8": "int8"}[dtype]


def _lengths(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the lengths (N,) of tokens (N,D), also where their squares overflow float32."""
    squares = np.einsum("nd,nd->n", tokens, tokens).astype(np.float64)
    odd = ~(squares < np.inf) | (squares < 1e-30)
    if odd.any():
        squares[odd] = np.square(tokens[odd], dtype=np.float64).sum(1)
    return np.sqrt(squares)


def cosine_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return 1 - cosine (N,) between tokens (...,D) before and after; 0 for two zeros, 1 for one, NaN for infinities.

    From |b - a|^2 = (|b| - |a|)^2 + 2 |a| |b| (1 - cos), which keeps its digits for small angles.
    """
    a, b = before.reshape(-1, before.shape[-1]), after.reshape(-1, after.shape[-1])
    with np.errstate(invalid="ignore", over="ignore"):
        length_a, length_b, distance = (_lengths(x) for x in (a, b, b - a))
        product = 2 * length_a * length_b
        error = np.maximum(distance**2 - (length_b - length_a) ** 2, 0.0)
        return np.where(product > 0, error / np.where(product > 0, product, 1.0), np.where(length_a == length_b, 0.0, 1.0))


@lru_cache(maxsize=8)
def _codec(itemsize: int) -> Blosc:
    from numcodecs import blosc

    # As zarr-python sets it: views are packed side by side by our own threads, Blosc's would wait for one another.
    blosc.use_threads = False
    return blosc.Blosc(shuffle=blosc.BITSHUFFLE, typesize=itemsize, **BLOSC)


def raw_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes (n,) of numbers; copy only those that are not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def pack(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack numbers of any shape into bytes (n,), at most 16 more than they have."""
    return np.frombuffer(_codec(values.itemsize).encode(raw_bytes(values)), dtype=np.uint8)


def unpack(packed: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Unpack bytes of ``pack`` into ``out`` (contiguous). Raise ValueError when they have another size or are not packed."""
    if len(packed) < _HEADER_BYTES or struct.unpack_from("<I4xI", packed.data, 4) != (out.nbytes, len(packed)):
        raise ValueError(f"{len(packed)} packed bytes are not of {out.nbytes} bytes")
    try:
        _codec(out.itemsize).decode(packed, raw_bytes(out))
    except RuntimeError as error:  # of Blosc: the bytes are not its own
        raise ValueError(str(error)) from None
