"""bfloat16 numbers in 12 bits instead of 16, exactly: signs and mantissas as they are, exponents within a window of sixteen.

The numbers of a teacher's view lie within a few powers of two. A number whose exponent field is one of ``base`` to
``base`` + 15 takes 12 bits: sign, exponent - base, mantissa. The others (one in a thousand normal numbers with a log-normal
scale per channel) are listed with their places. A view, little-endian:

    header: method 1 B, base 1 B, 0 2 B, count 4 B, listed (or Blosc's bytes) 4 B, 0 4 B
    places of listed numbers, uint32 (listed,)
    three words uint16 (3, count // 4): word k has number k of the first three quarters in its upper 12 bits and, in its lower
        four, the k-th four bits (from the top) of the last quarter's
    the count % 4 last numbers and the listed numbers, uint16

Packing is vector operations over a quarter of a view. Unpacking is that too or, of large views, one pass over memory
(compiled.py): as fast as copying. The entropy of such numbers is 0.70 of their bytes; this takes 0.75, and a coder that takes
0.70 (zstd of the exponents) ten times the time. Views that have more to repeat than exponents (zeros, constant channels) are
packed by Blosc behind the same header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Bits = NDArray[np.uint16]

_HEADER = struct.Struct("<BBxxIIxxxx")
HEADER_BYTES = _HEADER.size
_WINDOW, _OTHER = 1, 2
_EXPONENTS = 16  # that a window holds
_SAMPLE = 1 << 15  # numbers that decide how a view is packed
_COMPILED = 1 << 17  # numbers from which on compiled unpacking pays: a small study never waits for the compiler
_SIGN, _CODE = np.uint16(0x8000), np.uint16(0x07FF)
_UNFOLDED = np.uint16(0x87FF).astype(np.int16)  # sign and code after an arithmetic shift by four


def pack(bits: Bits, pack_other: Callable[[Bits], Bytes]) -> Bytes:
    """Bit patterns (n,) of bfloat16 numbers -> bytes. ``pack_other`` packs views that a window does not suit."""
    base, outside = _best_window(bits)
    middle = _middle(bits)
    if 0.75 + 3 * outside < len(pack_other(middle)) / max(2, middle.nbytes):
        packed = _pack_window(bits, base)
        if len(packed) < 0.9 * bits.nbytes:
            return packed
    other = pack_other(bits)
    padding = np.zeros(len(other) % 2, dtype=np.uint8)  # the next view's words shall lie where uint16 may
    return np.concatenate([_header(_OTHER, 0, len(bits), len(other)), other, padding])


def unpack(packed: Bytes, out: Bits, unpack_other: Callable[[Bytes, Bits], None]) -> None:
    """Bytes of ``pack`` -> the bit patterns, into ``out`` (n,). ValueError when they are not of that many or not packed."""
    if len(packed) < HEADER_BYTES:
        raise ValueError(f"{len(packed)} packed bytes are fewer than a header has")
    method, base, count, listed = _HEADER.unpack_from(packed.data)
    if count != len(out):
        raise ValueError(f"{len(packed)} packed bytes are not of {out.nbytes} bytes")
    body = packed[HEADER_BYTES:]
    if method == _OTHER:
        unpack_other(body[:listed], out)
        return
    quarter = count // 4
    if method != _WINDOW or len(body) != 6 * (quarter + listed) + 2 * (count % 4):
        raise ValueError(f"{len(packed)} packed bytes do not have the form of packed bfloat16")
    places, rest = body[: 4 * listed].view("<u4"), body[4 * listed :].view("<u2")
    _unpack_words(rest[: 3 * quarter].reshape(3, quarter), base, out[: 4 * quarter].reshape(4, quarter))
    tail = 3 * quarter + count % 4
    out[4 * quarter :] = rest[3 * quarter : tail]
    if listed and int(places.max()) >= count:
        raise ValueError("packed bfloat16 lists a number behind its end")
    out[places] = rest[tail:]


def _header(method: int, base: int, count: int, listed: int) -> Bytes:
    return np.frombuffer(_HEADER.pack(method, base, count, listed), dtype=np.uint8)


def _middle(bits: Bits) -> Bits:
    """Neighbours from the middle: what repeats among them shows in how Blosc packs them."""
    start = max(0, len(bits) - _SAMPLE) // 2
    return bits[start : start + _SAMPLE]


def _best_window(bits: Bits) -> tuple[int, float]:
    """(lowest exponent field, share of numbers outside) of the window that holds most of a sample of the numbers."""
    sample = bits[:: max(1, len(bits) // _SAMPLE) | 1]  # an odd step meets all of an even number of channels
    counts = np.bincount((sample >> 7) & 0xFF, minlength=256)
    inside = np.convolve(counts, np.ones(_EXPONENTS, dtype=np.int64), "valid")
    base = int(inside.argmax())
    return base, 1 - int(inside[base]) / max(1, len(sample))


def _pack_window(bits: Bits, base: int) -> Bytes:
    quarter = len(bits) // 4
    words = np.empty((3, quarter), dtype=np.uint16)
    signs, far = np.empty(quarter, dtype=np.uint16), np.empty(quarter, dtype=bool)
    last = np.empty(quarter, dtype=np.uint16)
    listed: list[NDArray[np.intp]] = []
    for number, folded in enumerate((*words, last)):
        source = bits[number * quarter : (number + 1) * quarter]
        np.bitwise_and(source, 0x7FFF, out=folded)
        np.subtract(folded, np.uint16(base << 7), out=folded)  # below the window: wraps to above it
        np.greater(folded, _CODE, out=far)
        listed.append(np.flatnonzero(far) + number * quarter)
        np.bitwise_and(folded, _CODE, out=folded)
        np.left_shift(folded, 4, out=folded)
        np.bitwise_and(source, _SIGN, out=signs)
        np.bitwise_or(folded, signs, out=folded)
    for word, shift in zip(words, (12, 8, 4), strict=True):
        np.right_shift(last, shift, out=signs)
        np.bitwise_and(signs, 15, out=signs)
        np.bitwise_or(word, signs, out=word)
    places = np.concatenate(listed)
    parts = (places.astype("<u4"), words.reshape(-1), bits[4 * quarter :], bits[places])
    header = _header(_WINDOW, base, len(bits), len(places))
    return np.concatenate([header, *(part.astype(part.dtype.newbyteorder("<"), copy=False).view(np.uint8) for part in parts)])


def _unpack_words(words: Bits, base: int, quarters: Bits) -> None:
    """Words (3,q) -> the numbers of the four quarters (4,q); those outside the window are still to be set."""
    if quarters.size >= _COMPILED and words.flags.carray and quarters.flags.carray:
        from pipeline.features.compiled import unpack_words

        unpack_words()(words, np.uint16(base << 7), quarters)
        return
    folded, numbers = words.view(np.int16), quarters.view(np.int16)
    part, last = np.empty_like(folded[0]), numbers[3]
    np.left_shift(folded[0], 12, out=last)
    for word, shift in ((folded[1], 8), (folded[2], 4)):
        np.bitwise_and(word, 15, out=part)
        np.left_shift(part, shift, out=part)
        np.bitwise_or(last, part, out=last)
    np.right_shift(last, 4, out=last)  # arithmetic: the sign stays where it is
    np.right_shift(folded, 4, out=numbers[:3])
    np.bitwise_and(numbers, _UNFOLDED, out=numbers)
    np.add(numbers, np.uint16(base << 7).astype(np.int16), out=numbers)
