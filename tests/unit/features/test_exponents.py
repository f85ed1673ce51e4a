"""bfloat16 in 12 bits: exact for every bit pattern, in the format that is written down, and refused when it is not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numba import njit
from numba.core import caching
from numpy.typing import NDArray

from pipeline.features import compiled, exponents
from pipeline.features.exponents import HEADER_BYTES
from pipeline.features.numbers import to_bfloat16_bits
from pipeline.features.packing import pack, unpack

WINDOW, OTHER = 1, 2


def normal_bits(count: int, seed: int = 0) -> NDArray[np.uint16]:
    return to_bfloat16_bits(np.random.default_rng(seed).standard_normal(count, dtype=np.float32))


def back(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint16]:
    found = np.full(count, 0xABCD, dtype=np.uint16)
    unpack(packed, found)
    return found


def read_by_the_book(packed: bytes) -> list[int]:
    """Bit patterns from packed bytes, number by number, as the module's text describes the format."""
    method, base, count, listed = struct.unpack_from("<BBxxIIxxxx", packed)
    assert method == WINDOW
    places = struct.unpack_from(f"<{listed}I", packed, HEADER_BYTES)
    quarter = count // 4
    rest = struct.unpack_from(f"<{3 * quarter + count % 4 + listed}H", packed, HEADER_BYTES + 4 * listed)
    words = [rest[k * quarter : (k + 1) * quarter] for k in range(3)]
    folded = [word >> 4 for row in words for word in row]
    folded += [(a & 15) << 8 | (b & 15) << 4 | (c & 15) for a, b, c in zip(*words, strict=True)]
    numbers = [(code >> 11) << 15 | (((code >> 7) & 15) + base) << 7 | code & 127 for code in folded]
    numbers += rest[3 * quarter : 3 * quarter + count % 4]
    for place, value in zip(places, rest[3 * quarter + count % 4 :], strict=True):
        numbers[place] = value
    return numbers


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 63, 64, 4097, 4 * (1 << 20) + 4 * 100 + 3])
def test_normal_numbers_come_back(count: int) -> None:
    bits = normal_bits(count)
    np.testing.assert_array_equal(back(pack(bits), count), bits)


@settings(deadline=None, max_examples=200)
@given(arrays.arrays(np.uint16, st.integers(1, 400), elements=st.integers(0, 0xFFFF)))
def test_every_bit_pattern_comes_back(bits: NDArray[np.uint16]) -> None:
    """NaN, infinities, zeros of both signs and denormals among them."""
    packed = pack(bits)
    np.testing.assert_array_equal(back(packed, len(bits)), bits)
    assert len(packed) <= bits.nbytes + 34
    assert len(packed) % 2 == 0


def test_the_bytes_are_those_of_the_written_format() -> None:
    bits = normal_bits(4003)
    bits[[5, 1200, 2500, 3900]] = [0x0000, 0x8000, 0x7F80, 0xFFC1]
    packed = pack(bits)
    assert packed[0] == WINDOW
    assert read_by_the_book(packed.tobytes()) == bits.tolist()


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_packed_bytes_may_lie_anywhere(offset: int) -> None:
    """In a file that somebody else's software wrote, a view may begin at an odd byte."""
    bits = normal_bits(4003)
    bits[[7, 3000]] = 0
    packed = pack(bits)
    moved = np.zeros(len(packed) + offset, dtype=np.uint8)
    moved[offset:] = packed
    np.testing.assert_array_equal(back(moved[offset:], 4003), bits)


def test_numbers_of_one_scale_take_three_quarters() -> None:
    bits = normal_bits(1 << 18)
    assert 0.75 <= len(pack(bits)) / bits.nbytes < 0.752


@pytest.mark.parametrize("kind", ["zeros", "constant channels", "uniform bits"])
def test_what_a_window_does_not_suit_is_packed_otherwise(kind: str) -> None:
    random = np.random.default_rng(2)
    bits = {
        "zeros": np.zeros(1 << 16, dtype=np.uint16),
        "constant channels": np.tile(normal_bits(64), 1 << 10),
        "uniform bits": random.integers(0, 1 << 16, 1 << 16).astype(np.uint16),
    }[kind]
    packed = pack(bits)
    assert packed[0] == OTHER
    np.testing.assert_array_equal(back(packed, len(bits)), bits)
    assert len(packed) <= bits.nbytes * (1 if kind == "uniform bits" else 0.05) + 34


def test_a_sample_that_misleads_costs_bytes_and_no_number() -> None:
    """The sample steps over every second number: those outside the window are not in it."""
    bits = normal_bits(1 << 17)
    step = (len(bits) // (1 << 15)) | 1
    far = np.ones(len(bits), dtype=bool)
    far[::step] = False
    far[1 << 15 : -(1 << 15)] = False  # nor is the middle
    bits[far] = np.random.default_rng(3).integers(0, 1 << 16, int(far.sum()))
    packed = pack(bits)
    assert packed[0] == OTHER
    np.testing.assert_array_equal(back(packed, len(bits)), bits)


def changed(packed: NDArray[np.uint8], offset: int, value: bytes) -> NDArray[np.uint8]:
    other = packed.copy()
    other[offset : offset + len(value)] = np.frombuffer(value, np.uint8)
    return other


def test_bytes_of_another_form_are_refused() -> None:
    bits = normal_bits(400)
    bits[7] = 0
    packed = pack(bits)
    found = np.empty_like(bits)
    listed = struct.unpack_from("<I", packed, 8)[0]
    assert listed >= 1
    wrong = (
        packed[:15],  # less than a header
        packed[:-2],
        np.concatenate([packed, packed[:2]]),
        changed(packed, 0, b"\x07"),  # no such method
        changed(packed, 8, struct.pack("<I", listed + 1)),
        changed(packed, HEADER_BYTES, struct.pack("<I", 400)),  # a place behind the end
    )
    for each in wrong:
        with pytest.raises(ValueError, match="packed"):
            unpack(each, found)
    with pytest.raises(ValueError, match="not of 798 bytes"):
        unpack(packed, found[1:])


def test_blosc_behind_the_header_is_checked_too() -> None:
    zeros = np.zeros(4096, dtype=np.uint16)
    packed = pack(zeros)
    for offset in (4, 12):  # bytes before and after packing, as Blosc's header states them
        with pytest.raises(ValueError, match="packed bytes are not of"):
            unpack(changed(packed, HEADER_BYTES + offset, struct.pack("<I", 1)), np.empty_like(zeros))
    with pytest.raises(ValueError, match="packed bytes are not of"):
        unpack(packed[:-8], np.empty_like(zeros))  # Blosc would read behind the end


def test_the_other_packing_is_called_with_what_is_left() -> None:
    """The codec knows Blosc by its two functions only."""
    seen: list[int] = []

    def plain(bits: NDArray[np.uint16]) -> NDArray[np.uint8]:
        seen.append(len(bits))
        return np.zeros(3, dtype=np.uint8)

    bits = normal_bits(1 << 16)
    packed = exponents.pack(bits, plain)
    assert seen == [1 << 15, 1 << 16]
    assert len(packed) == HEADER_BYTES + 4
    got: list[int] = []
    exponents.unpack(packed, bits, lambda body, out: got.extend((len(body), len(out))))
    assert got == [3, 1 << 16]


@pytest.mark.parametrize("offset", [0, 1])
def test_compiled_unpacking_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    """As the vector operations do; these also serve words that lie at odd addresses, which compiled code may not read."""
    bits = np.random.default_rng(4).integers(0x3C00, 0x4400, 1 << 18).astype(np.uint16) | (normal_bits(1 << 18) & 0x8000)
    bits[::1000] = np.arange(len(bits[::1000]), dtype=np.uint16) * 251
    packed = pack(bits)
    assert packed[0] == WINDOW
    memory = np.zeros(len(packed) + 1, dtype=np.uint8)
    memory[offset : offset + len(packed)] = packed
    calls: list[int] = []
    real = compiled.unpack_words
    monkeypatch.setattr(compiled, "unpack_words", lambda: (calls.append(1), real())[1])
    found = back(memory[offset : offset + len(packed)], len(bits))
    assert len(calls) == 1 - offset
    np.testing.assert_array_equal(found, bits)
    monkeypatch.setattr(exponents, "_COMPILED", len(bits) + 1)
    np.testing.assert_array_equal(back(packed, len(bits)), bits)
    assert len(calls) == 1 - offset


def abs_of(number: int) -> int:
    return abs(number)


def test_compiled_unpacking_needs_no_folder_for_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked: Numba finds no place to write, as in a read-only installation without a home."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(abs_of)
    compiled.unpack_words.cache_clear()
    try:
        bits = normal_bits(1 << 18)
        np.testing.assert_array_equal(back(pack(bits), len(bits)), bits)
    finally:
        compiled.unpack_words.cache_clear()
