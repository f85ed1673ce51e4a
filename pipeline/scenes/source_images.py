"""Read external images with the same checks in every dataset: depth must be depth, and colour must be upright.

A picture's EXIF orientation says how viewers turn it. Depth and cameras know nothing of it, so whether they belong to the
turned or to the stored picture cannot be told from the files: such a picture is refused unless an option says which.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.core.errors import FrameError

Exif = Literal["refuse", "turn", "ignore"]
NO_IMAGE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError)
"""What Pillow raises for damaged files; the second when a damaged header asks for gigabytes."""
AGAIN = "the file is truncated or damaged: get it again"
_ORIENTATION = 0x0112
_TURNED = range(2, 9)
_SIDEWAYS = range(5, 9)
"""Values of the EXIF tag Orientation: 1 is upright, 5 to 8 exchange width and height."""
_NO_DEPTH = {"P": "a palette of 256 colours", "L": "8 bits", "1": "1 bit", "RGB": "3 channels", "RGBA": "4 channels"}


@contextmanager
def opened(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    """An image file, or its bytes, open. FrameError, naming ``where``, when it is missing or cannot be decoded in the block."""
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise FrameError("an image is missing", where=where) from None
    except NO_IMAGE as error:
        raise FrameError(f"a file is not an image ({error})", where=where, fix=AGAIN) from None
    try:
        with image:
            yield image
    except NO_IMAGE as error:
        raise FrameError(f"an image cannot be decoded ({error})", where=where, fix=AGAIN) from None


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 (upright) where there is none."""
    value = image.getexif().get(_ORIENTATION)
    return int(value) if isinstance(value, int) and value in _TURNED else 1


def refuse_turned(image: Image.Image, where: str, fix: str = "store the pictures upright, without the tag") -> None:
    """FrameError for a picture that viewers turn."""
    turned = orientation(image)
    if turned != 1:
        raise FrameError(
            f"the picture's EXIF orientation is {turned}: viewers turn it, and nothing says whether depth and camera belong to "
            "the turned picture or to the stored one",
            where=where,
            allowed="orientation 1 or none",
            fix=fix,
        )


def upright(image: Image.Image, where: str, exif: Exif) -> Image.Image:
    """The picture as ``exif`` wants it: turned as viewers do, or as stored. FrameError for one that is turned and refused."""
    if exif == "refuse":
        refuse_turned(
            image, where, "set exif_orientation: turn (depth belongs to the turned picture) or ignore (to the stored)"
        )
    return ImageOps.exif_transpose(image) if exif == "turn" else image


def _refuse(image: Image.Image, where: str, exif: Exif) -> None:
    if exif == "refuse":
        refuse_turned(image, where, "set exif_orientation: turn (depth is of the turned picture) or ignore (of the stored one)")


def image_size(source: Path | bytes, where: str, exif: Exif = "ignore") -> tuple[int, int]:
    """(height, width) of an image from its header, as ``upright`` would give it."""
    with opened(source, where) as image:
        _refuse(image, where, exif)
        sideways = exif == "turn" and orientation(image) in _SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


def depth_values(source: Path | bytes, where: str, size: tuple[int, int] | None = None) -> NDArray[np.uint16]:
    """Stored depth uint16 (H,W) of an image of one channel of 16 bits; ``size`` (H,W) is enforced when given.

    FrameError for anything else: 8 bits or a palette hold a picture of depth, no measurement.
    """
    with opened(source, where) as image:
        refuse_turned(image, where)
        mode, values = image.mode, np.asarray(image)
    if values.ndim != 2 or values.dtype == np.uint8 or values.dtype.kind not in "ui":
        raise FrameError(
            f"a depth image has {_NO_DEPTH.get(mode, f'values of kind {mode}')}: a picture of depth, no measurement",
            where=where,
            allowed="PNG, one channel of 16 bits",
            fix="export depth itself as 16-bit PNG",
        )
    if size is not None and values.shape != size:
        raise FrameError(
            f"a depth image is {values.shape[1]}x{values.shape[0]} pixels",
            where=where,
            allowed=f"{size[1]}x{size[0]}, as the scene's first",
        )
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= np.iinfo(np.uint16).max:
        raise FrameError(f"a depth image holds values up to {values.max()}", where=where, allowed="0 to 65535")
    return values.astype(np.uint16)
